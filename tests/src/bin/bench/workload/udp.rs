//! Small UDP packets one way, as many as arrive.
//!
//! The sender never has more than [`WINDOW`] packets under way. Without such a limit it would send what is thrown away
//! before the receiver gets to see it, and the figure would tell how the scheduler divides the CPU, not what a packet
//! costs.
//!
//! For every [`BATCH`] packets one goes back, as protocols over UDP have it. Nobody who tracks connections, our fast path
//! included, takes a flow for established that is never answered.

use std::{
    io::ErrorKind,
    net::UdpSocket,
    sync::atomic::{AtomicU64, Ordering},
    thread::{self, Thread},
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};
use overlay_tests::families::any_like;

use super::{Sample, Work, drive, join};
use crate::{bed::Ends, cpu::Cpu};

/// Bytes of payload.
const SIZE: usize = 64;

/// Packets under way at most: less than any queue on the way holds.
const WINDOW: u64 = 256;

/// After how many packets the receiver answers, and wakes the sender.
const BATCH: u64 = 64;

/// What has not arrived after this time is lost.
const UNDER_WAY: Duration = Duration::from_millis(5);

/// How often an idle receiver looks whether it is time to stop.
const IDLE: Duration = Duration::from_millis(20);

pub(super) fn measure(ends: &Ends, cpus: [Cpu; 2], duration: Duration) -> Result<Sample> {
    let far = ends.to.run(|| UdpSocket::bind((ends.address, 0))).context("bind the far socket")?;
    let near = ends.from.run(|| UdpSocket::bind((any_like(ends.address), 0))).context("bind the near socket")?;
    near.connect(far.local_addr()?).context("connect the near socket")?;
    far.set_read_timeout(Some(IDLE))?;
    setsockopt(&far, sockopt::RcvBufForce, &(1 << 22)).context("enlarge the receive buffer")?;
    let work = Work::default();
    thread::scope(|scope| {
        let sender = drive(scope, cpus[0], || send(&near, &work));
        let (waker, far, work) = (sender.thread().clone(), &far, &work);
        let receiver = drive(scope, cpus[1], move || receive(far, work, &waker));
        let window = work.window(cpus, duration);
        sender.thread().unpark();
        join(sender)?;
        join(receiver)?;
        Ok(window?.sample(1.0))
    })
}

fn send(socket: &UdpSocket, work: &Work) -> Result<()> {
    let packet = [0x5a; SIZE];
    let (mut sent, mut lost) = (0, 0);
    let arrived = |count: &AtomicU64| count.load(Ordering::Relaxed);
    while work.goes_on() {
        let before = arrived(&work.done);
        if sent - lost < before + WINDOW {
            socket.send(&packet).context("send a UDP packet")?;
            sent += 1;
            continue;
        }
        thread::park_timeout(UNDER_WAY);
        if arrived(&work.done) == before {
            lost = sent - before;
        }
    }
    Ok(())
}

fn receive(socket: &UdpSocket, work: &Work, sender: &Thread) -> Result<()> {
    let mut packet = [0; SIZE];
    let mut count: u64 = 0;
    while work.goes_on() {
        match socket.recv_from(&mut packet) {
            Ok((_, from)) => {
                if count.is_multiple_of(BATCH) {
                    // The sender reads none of these: its buffer fills up, and then they end there.
                    socket.send_to(&packet, from).context("answer a UDP packet")?;
                    sender.unpark();
                }
                work.add(1);
                count += 1;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error).context("receive a UDP packet"),
        }
    }
    Ok(())
}
