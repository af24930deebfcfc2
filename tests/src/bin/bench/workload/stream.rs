//! TCP streams.

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};

use super::{Sample, Work, connect, drive, join};
use crate::{bed::Ends, cpu::Cpu};

/// Bytes of one read or write.
const CHUNK: usize = 128 << 10;

/// Bits of a gigabit, in bytes.
const GBIT: f64 = 1e9 / 8.0;

pub(super) fn measure(ends: &Ends, cpus: [Cpu; 2], duration: Duration, flows: u8) -> Result<Sample> {
    let streams = (0..flows).map(|_| connect(ends)).collect::<Result<Vec<_>>>()?;
    let work = Work::default();
    thread::scope(|scope| {
        let mut drivers = Vec::new();
        for [near, far] in streams {
            drivers.push(drive(scope, cpus[0], || send(near, &work)));
            drivers.push(drive(scope, cpus[1], || receive(far, &work)));
        }
        let window = work.window(cpus, duration);
        drivers.into_iter().try_for_each(join)?;
        Ok(window?.sample(GBIT))
    })
}

fn send(mut stream: TcpStream, work: &Work) -> Result<()> {
    let chunk = vec![0x5a; CHUNK];
    while work.goes_on() {
        stream.write_all(&chunk).context("send over TCP")?;
    }
    stream.shutdown(Shutdown::Write).context("end a TCP stream")
}

/// Counts what arrives, to the end of the stream: a receiver that stops earlier would break the sender's writes.
fn receive(mut stream: TcpStream, work: &Work) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match stream.read(&mut chunk).context("receive over TCP")? {
            0 => return Ok(()),
            count => work.add(count as u64),
        }
    }
}
