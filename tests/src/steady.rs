//! [`Steady`]: a TCP connection that carries a little all the time, and how often it had to send something again.

use std::{
    io::{Read, Write},
    mem,
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd as _,
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::libc;

use crate::traffic::Flow;

/// How long one step may take.
const STEP: Duration = Duration::from_secs(10);
/// How much is written at once, and how often: 4 Mbyte/s, so that no queue on the way fills up by itself.
const PIECE: [u8; 4096] = [7; 4096];
const INTERVAL: Duration = Duration::from_millis(1);

/// A connection, under way until [`stop`](Self::stop).
#[derive(Debug)]
pub struct Steady {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<Result<Carried>>,
    receiver: JoinHandle<Result<u64>>,
}

/// What became of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    /// Bytes sent, which all have arrived.
    pub bytes: u64,
    /// Segments that were sent once more, as the kernel counts them.
    pub retransmitted: u32,
}

impl Steady {
    /// Connects the ends of `flow` and sends without pause.
    ///
    /// # Errors
    ///
    /// When there is no connection.
    pub fn start(flow: &Flow) -> Result<Self> {
        // Without: the sender also repeats its last segment when the answer is slow, as it is on a busy machine.
        flow.from.sysctl("net.ipv4.tcp_early_retrans", "0")?;
        let listener = flow.to.run(|| TcpListener::bind((flow.address, 0)))?;
        let to: SocketAddr = listener.local_addr()?;
        let sending = flow.from.run(|| TcpStream::connect_timeout(&to, STEP));
        let sending = sending.with_context(|| format!("connect to {to}"))?;
        let (receiving, _) = listener.accept().with_context(|| format!("accept at {to}"))?;
        sending.set_nodelay(true)?;
        sending.set_write_timeout(Some(STEP))?;
        receiving.set_read_timeout(Some(STEP))?;
        let stop = Arc::new(AtomicBool::new(false));
        let over = Arc::clone(&stop);
        Ok(Self {
            stop,
            sender: thread::spawn(move || send(sending, &over)),
            receiver: thread::spawn(move || receive(receiving)),
        })
    }

    /// Ends the connection and says what became of it.
    ///
    /// # Errors
    ///
    /// When it broke or stalled, or not everything arrived.
    pub fn stop(self) -> Result<Carried> {
        self.stop.store(true, Ordering::SeqCst);
        let carried = self.sender.join().unwrap_or_else(|panic| panic::resume_unwind(panic))?;
        let received = self.receiver.join().unwrap_or_else(|panic| panic::resume_unwind(panic))?;
        ensure!(received == carried.bytes, "{} bytes sent, {received} arrived", carried.bytes);
        Ok(carried)
    }
}

fn send(mut stream: TcpStream, stop: &AtomicBool) -> Result<Carried> {
    let (start, mut bytes) = (Instant::now(), 0);
    for number in 0_u32.. {
        thread::sleep((start + INTERVAL * number).saturating_duration_since(Instant::now()));
        if stop.load(Ordering::SeqCst) {
            break;
        }
        stream.write_all(&PIECE).with_context(|| format!("send after {bytes} bytes"))?;
        bytes += PIECE.len() as u64;
    }
    // The receiver ends by this; the count is that of a connection with everything delivered or on its way.
    let retransmitted = retransmitted(&stream)?;
    Ok(Carried { bytes, retransmitted })
}

fn receive(mut stream: TcpStream) -> Result<u64> {
    let (mut received, mut buffer) = (0, vec![0; 1 << 16]);
    loop {
        match stream.read(&mut buffer).with_context(|| format!("receive after {received} bytes"))? {
            0 => return Ok(received),
            count => received += count as u64,
        }
    }
}

/// The kernel's count of retransmitted segments of a connection.
fn retransmitted(stream: &TcpStream) -> Result<u32> {
    // SAFETY: the structure is plain numbers, for which zero is a value.
    let mut info: libc::tcp_info = unsafe { mem::zeroed() };
    let mut length = libc::socklen_t::try_from(size_of_val(&info))?;
    // SAFETY: the kernel writes at most `length` bytes to a structure of that size, which outlives the call.
    let outcome = unsafe {
        libc::getsockopt(stream.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut info).cast(), &raw mut length)
    };
    ensure!(outcome == 0, "read TCP_INFO: {}", std::io::Error::last_os_error());
    Ok(info.tcpi_total_retrans)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        netns::Netns,
        process::{output, wait_until},
    };

    #[test]
    fn what_was_lost_and_sent_again_is_counted() {
        let (from, to) = (Netns::new().unwrap(), Netns::new().unwrap());
        from.veth("a", &to, "b", 1500).unwrap();
        from.ip("address add 192.0.2.1/24 dev a").unwrap();
        to.ip("address add 192.0.2.2/24 dev b").unwrap();
        let flow = Flow::new(&from, &to, Ipv4Addr::new(192, 0, 2, 2));
        let steady = Steady::start(&flow).unwrap();
        let nft = |rules: &str| output(flow.to.command("nft").arg(rules)).unwrap();
        nft("table ip cut { chain input { type filter hook input priority 0; policy drop; }; }");
        let cut = Instant::now();
        // Longer than the shortest time after which TCP sends again.
        wait_until("some time to pass", STEP, || cut.elapsed() > Duration::from_millis(500)).unwrap();
        nft("delete table ip cut");
        let carried = steady.stop().unwrap();
        assert!(carried.retransmitted > 0, "{carried:?}");
    }
}
