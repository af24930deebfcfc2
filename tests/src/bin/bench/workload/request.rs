//! Requests and responses over one TCP connection.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use super::{Sample, Work, connect, drive, join};
use crate::{bed::Ends, cpu::Cpu};

/// Bytes of a request and of a response.
const SIZE: usize = 64;

pub(super) fn measure(ends: &Ends, cpus: [Cpu; 2], duration: Duration) -> Result<Sample> {
    let [near, far] = connect(ends)?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let work = Work::default();
    thread::scope(|scope| {
        let client = drive(scope, cpus[0], || ask(near, &work));
        let server = drive(scope, cpus[1], || answer(far));
        let window = work.window(cpus, duration);
        let delays = join(client)?;
        join(server)?;
        Ok(window?.sample_with(&delays))
    })
}

/// Asks until it is time to stop; returns how long each answer took, in microseconds.
fn ask(mut stream: TcpStream, work: &Work) -> Result<Vec<f64>> {
    let mut message = [0x5a; SIZE];
    let mut delays = Vec::with_capacity(1 << 16);
    while work.goes_on() {
        let start = Instant::now();
        stream.write_all(&message).context("send a request")?;
        stream.read_exact(&mut message).context("receive a response")?;
        delays.push(start.elapsed().as_secs_f64() * 1e6);
        work.add(1);
    }
    stream.shutdown(Shutdown::Write).context("end a TCP connection")?;
    Ok(delays)
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let mut message = [0; SIZE];
    loop {
        match stream.read_exact(&mut message) {
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            received => received.context("receive a request")?,
        }
        stream.write_all(&message).context("send a response")?;
    }
}
