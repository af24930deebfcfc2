//! The work that every subject is given, and how much of it was done in a window of time.

mod request;
mod stream;
mod udp;

use std::{
    fmt, io, panic,
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread::{self, Scope, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{
    bed::Ends,
    cpu::{self, Cpu, Idled},
    stats,
};

/// How long the drivers run before the window opens.
const WARM_UP: Duration = Duration::from_millis(40);

/// How long one read or write may take before that counts as a failure.
const STEP: Duration = Duration::from_secs(5);

/// A kind of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// This many TCP connections that send as fast as they can.
    Stream(u8),
    /// One TCP connection: 64 bytes there, 64 bytes back, and again.
    Request,
    /// UDP packets with 64 bytes of payload, as many as the receiver takes.
    Udp,
}

/// All of them.
pub(crate) const WORKLOADS: [Workload; 4] =
    [Workload::Stream(1), Workload::Stream(4), Workload::Request, Workload::Udp];

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stream(flows) => write!(f, "tcp-{flows}"),
            Self::Request => f.write_str("request"),
            Self::Udp => f.write_str("udp"),
        }
    }
}

impl Workload {
    /// What is counted, in the singular.
    pub(crate) const fn unit(self) -> &'static str {
        match self {
            Self::Stream(_) => "Gbit",
            Self::Request => "transaction",
            Self::Udp => "packet",
        }
    }

    /// Does the work between `ends` for `duration`, the first end on the first of the `cpus`, the second on the second.
    ///
    /// # Errors
    ///
    /// When a connection fails or stalls.
    pub(crate) fn measure(self, ends: &Ends, cpus: [Cpu; 2], duration: Duration) -> Result<Sample> {
        match self {
            Self::Stream(flows) => stream::measure(ends, cpus, duration, flows),
            Self::Request => request::measure(ends, cpus, duration),
            Self::Udp => udp::measure(ends, cpus, duration),
        }
    }
}

/// What was done in one window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sample {
    /// Units per second.
    pub(crate) rate: f64,
    /// Busy CPU time per unit in microseconds, all CPUs of the bench together.
    pub(crate) cpu_us: f64,
    /// Half and 99 % of all round trips took at most so many microseconds.
    pub(crate) delays_us: Option<[f64; 2]>,
}

/// What the drivers of a workload share.
#[derive(Debug, Default)]
struct Work {
    /// Told to the drivers when the window is closed.
    stop: AtomicBool,
    /// What was done so far: bytes, transactions or packets.
    done: AtomicU64,
}

impl Work {
    fn goes_on(&self) -> bool {
        !self.stop.load(Ordering::Relaxed)
    }

    fn add(&self, count: u64) {
        self.done.fetch_add(count, Ordering::Relaxed);
    }

    /// Lets the drivers work for `duration`, after a warm-up, and stops them.
    fn window(&self, cpus: [Cpu; 2], duration: Duration) -> Result<Window> {
        let mut used = cpus.to_vec();
        used.dedup();
        let read = || Ok::<_, anyhow::Error>((Idled::now(&used)?, self.done.load(Ordering::Relaxed), Instant::now()));
        thread::sleep(WARM_UP);
        let before = read();
        thread::sleep(duration);
        let after = read();
        self.stop.store(true, Ordering::Relaxed);
        let ((idle, first, start), (later, last, end)) = (before?, after?);
        Ok(Window { first, last, seconds: (end - start).as_secs_f64(), busy: idle.busy_until(&later, used.len()) })
    }
}

/// A window of time, and what was done in it.
#[derive(Debug, Clone, Copy)]
struct Window {
    /// What was done before.
    first: u64,
    /// What was done up to its end.
    last: u64,
    seconds: f64,
    /// CPU seconds.
    busy: f64,
}

impl Window {
    /// `per_unit`: so many of what was counted are one unit.
    fn sample(&self, per_unit: f64) -> Sample {
        let units = (self.last - self.first) as f64 / per_unit;
        Sample { rate: units / self.seconds, cpu_us: self.busy * 1e6 / units.max(f64::MIN_POSITIVE), delays_us: None }
    }

    /// The same with the delays in microseconds of the transactions, numbered as they were counted.
    fn sample_with(&self, delays_us: &[f64]) -> Sample {
        let end = delays_us.len().min(self.last as usize);
        let within = &delays_us[end.min(self.first as usize)..end];
        let delays_us = [0.5, 0.99].map(|part| stats::quantile(within, part).unwrap_or(f64::NAN));
        Sample { delays_us: Some(delays_us), ..self.sample(1.0) }
    }
}

/// Starts a driver on a thread that stays on `cpu`.
fn drive<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    cpu: Cpu,
    work: impl FnOnce() -> Result<T> + Send + 'scope,
) -> ScopedJoinHandle<'scope, Result<T>> {
    scope.spawn(move || {
        cpu::pin(0, cpu)?;
        work()
    })
}

/// What a driver has come to.
fn join<T>(driver: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    driver.join().unwrap_or_else(|panic| panic::resume_unwind(panic))
}

/// A TCP connection between the ends, its congestion control cubic: the machine's default may be one that paces, which
/// would measure the pacing.
fn connect(ends: &Ends) -> Result<[std::net::TcpStream; 2]> {
    let connect = || -> io::Result<[std::net::TcpStream; 2]> {
        let listener = ends.to.run(|| std::net::TcpListener::bind((ends.address, 0)))?;
        let address = listener.local_addr()?;
        let near = ends.from.run(|| std::net::TcpStream::connect_timeout(&address, STEP))?;
        let (far, _) = listener.accept()?;
        for stream in [&near, &far] {
            stream.set_read_timeout(Some(STEP))?;
            stream.set_write_timeout(Some(STEP))?;
            setsockopt(stream, sockopt::TcpCongestion, &std::ffi::OsString::from("cubic"))?;
        }
        Ok([near, far])
    };
    connect().with_context(|| format!("connect to {}", ends.address))
}
