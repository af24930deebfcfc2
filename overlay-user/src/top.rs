//! `overlay top`: the rates of peers and containers, live, on a terminal.
//!
//! ```text
//! maps, interfaces -> [Reading] -> Status, ContainerRate -> [Model] -> [view] -> terminal
//!                                            keys ------------^
//! ```
//!
//! What it shows of the node, the peers and the drops is what `overlay status` would; only containers are its own.

mod keys;
mod model;
mod reading;
#[cfg(test)]
mod sample_rates;
mod view;

use std::{
    io::{IsTerminal as _, stdin, stdout},
    ops::ControlFlow,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use crossterm::event::EventStream;
use futures::StreamExt as _;
use ratatui::DefaultTerminal;
use tokio::time::{MissedTickBehavior, interval};

use self::{model::Model, reading::Reading};
use crate::{rundir::RunDir, signals::Signals};

/// Shows the data path in `run_dir` until it is told to stop, and reads it every `period`.
///
/// # Errors
/// When standard input or output is no terminal, or there is no data path.
pub async fn run(run_dir: &RunDir, period: Duration) -> Result<()> {
    ensure!(
        stdin().is_terminal() && stdout().is_terminal(),
        "show live rates: standard input and output must be a terminal; `overlay status` prints once, also as JSON"
    );
    let first = Reading::take(run_dir).await?;
    let signals = Signals::new()?;
    // Also makes a panic restore the terminal before it is told.
    let mut terminal = ratatui::try_init().context("take over the terminal")?;
    let outcome = show(run_dir, period, first, signals, &mut terminal).await;
    ratatui::try_restore().context("restore the terminal; `reset` does")?;
    outcome
}

async fn show(
    run_dir: &RunDir,
    period: Duration,
    mut before: Reading,
    mut signals: Signals,
    terminal: &mut DefaultTerminal,
) -> Result<()> {
    let mut events = EventStream::new();
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first is at once.
    ticks.tick().await;
    let mut model = Model::default();
    loop {
        terminal.draw(|frame| view::draw(&model, frame)).context("draw on the terminal")?;
        tokio::select! {
            () = signals.recv() => return Ok(()),
            event = events.next() => match event {
                Some(event) => if let ControlFlow::Break(()) = keys::obey(&event.context("read keys")?, &mut model) {
                    return Ok(());
                },
                None => return Ok(()),
            },
            _ = ticks.tick() => match Reading::take(run_dir).await {
                Ok(now) => {
                    model.learn(now.since(run_dir, &before).await);
                    before = now;
                }
                Err(error) => model.learn(Err(error)),
            },
        }
    }
}
