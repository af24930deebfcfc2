//! Traffic between two namespaces: pings, a TCP stream, UDP echoes. Bounded in time and in what may go wrong.

use std::{
    ffi::OsString,
    io::{self, Read, Write},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket},
    panic,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};

use crate::{families::any_like, netns::Netns, patience::patient};

/// Seconds between two pings of one series.
const PING_INTERVAL: &str = "0.2";

/// How long one step may take, such as a read, before that counts as a failure.
const STEP: Duration = Duration::from_secs(5);

/// How long a reply may take before its packet counts as lost.
const REPLY: Duration = Duration::from_secs(1);

/// What came of a series of pings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pings {
    /// Requests sent.
    pub sent: u32,
    /// Replies received.
    pub received: u32,
    /// Average round trip in milliseconds, when there was any reply.
    pub average_ms: Option<f64>,
}

/// Sends `count` pings from the namespace `from` to `to`, five a second, and waits up to a second for each reply.
///
/// # Errors
///
/// When `ping` cannot be run or says what we do not understand. Lost replies are no error.
pub fn ping(from: &Netns, to: impl Into<IpAddr>, count: u32) -> Result<Pings> {
    let to = to.into();
    let mut command = from.command("ping");
    let reply = patient(REPLY).as_secs().to_string();
    command.args(["-n", "-q", "-W", &reply, "-i", PING_INTERVAL, "-c", &count.to_string(), &to.to_string()]);
    let output = command.output().context("start ping")?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_ping(&text)
        .with_context(|| format!("understand ping to {to}: {text:?} {:?}", String::from_utf8_lossy(&output.stderr)))
}

/// Reads the summary that iputils' ping prints.
fn parse_ping(text: &str) -> Option<Pings> {
    let summary = text.lines().find(|line| line.contains("packets transmitted"))?;
    let mut numbers = summary.split(", ").map(|part| part.split(' ').next().and_then(|word| word.parse().ok()));
    let (sent, received) = (numbers.next()??, numbers.next()??);
    let rtt = text.lines().find_map(|line| line.strip_prefix("rtt min/avg/max/mdev = "));
    let average_ms = rtt.and_then(|values| values.split('/').nth(1)).and_then(|average| average.parse().ok());
    Some(Pings { sent, received, average_ms })
}

/// Two namespaces that traffic flows between, and the address of the second as the first knows it.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Where connections are made from.
    pub from: Netns,
    /// Where they are accepted.
    pub to: Netns,
    /// An address of `to`.
    pub address: IpAddr,
}

/// What a TCP stream carried.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Stream {
    /// Bytes that arrived, every one as it was sent.
    pub bytes: u64,
    /// From the connection's start until all of them had arrived.
    pub time: Duration,
}

impl Stream {
    /// The rate of the payload.
    #[must_use]
    pub fn gbit_per_second(&self) -> f64 {
        self.bytes as f64 * 8.0 / self.time.as_secs_f64() / 1e9
    }
}

impl Flow {
    /// A flow between these two.
    #[must_use]
    pub fn new(from: &Netns, to: &Netns, address: impl Into<IpAddr>) -> Self {
        Self { from: from.clone(), to: to.clone(), address: address.into() }
    }

    /// Sends bytes over one TCP connection for `duration` and compares each one that arrives with what was sent.
    ///
    /// # Errors
    ///
    /// When the connection fails or stalls, or a byte arrives that was not sent.
    pub fn tcp_stream(&self, duration: Duration) -> Result<Stream> {
        self.stream(|_, time| time < duration)
    }

    /// The same until `stop` is set, but for no longer than `limit`.
    ///
    /// # Errors
    ///
    /// As [`tcp_stream`](Self::tcp_stream).
    pub fn tcp_stream_until(&self, stop: &AtomicBool, limit: Duration) -> Result<Stream> {
        self.stream(|_, time| !stop.load(Ordering::Relaxed) && time < limit)
    }

    /// Sends at least `bytes` bytes over one TCP connection and compares each one that arrives with what was sent.
    ///
    /// # Errors
    ///
    /// When the connection fails or stalls, or a byte arrives that was not sent.
    pub fn tcp_transfer(&self, bytes: u64) -> Result<Stream> {
        self.stream(|sent, _| sent < bytes)
    }

    /// Sends as long as `more` says so of the bytes sent and the time since the connection's start.
    fn stream(&self, more: impl Fn(u64, Duration) -> bool + Send) -> Result<Stream> {
        let (listener, to) = self.listen()?;
        let sender = self.from.run(|| TcpStream::connect_timeout(&to, patient(STEP)));
        let sender = sender.with_context(|| format!("connect to {to}"))?;
        let (receiver, _) = listener.accept().with_context(|| format!("accept at {to}"))?;
        sender.set_write_timeout(Some(patient(STEP)))?;
        receiver.set_read_timeout(Some(patient(STEP)))?;
        // The machine's default may be one that paces, which measures the pacing. Where there is no cubic, the
        // default has to do.
        if setsockopt(&sender, sockopt::TcpCongestion, &OsString::from("cubic")).is_err() {
            eprintln!("no cubic congestion control here: the stream uses the default");
        }
        let pattern = &pattern();
        let start = Instant::now();
        let (sent, received) = thread::scope(|scope| {
            let sending = scope.spawn(move || send(sender, pattern, |sent| more(sent, start.elapsed())));
            let received = receive(receiver, pattern);
            (sending.join().unwrap_or_else(|panic| panic::resume_unwind(panic)), received)
        });
        let (sent, received) = (sent.with_context(|| format!("send to {to}"))?, received?);
        ensure!(sent == received, "sent {sent} bytes to {to}, {received} arrived");
        Ok(Stream { bytes: received, time: start.elapsed() })
    }

    fn listen(&self) -> Result<(TcpListener, SocketAddr)> {
        let listener = self.to.run(|| TcpListener::bind((self.address, 0)));
        let listener = listener.with_context(|| format!("listen on {}", self.address))?;
        setsockopt(
            &listener,
            sockopt::ReceiveTimeout,
            &nix::sys::time::TimeVal::new(patient(STEP).as_secs() as i64, 0),
        )?;
        let address = listener.local_addr()?;
        Ok((listener, address))
    }

    /// Sends `count` numbered UDP packets of `size` bytes there and back, one after the other, and returns how many
    /// made it both ways.
    ///
    /// # Errors
    ///
    /// When a socket fails, or something arrives that was not sent. Packets lost are no error.
    pub fn udp_echo(&self, count: u32, size: usize) -> Result<u32> {
        let (there, back) =
            (self.to.run(|| udp_socket(self.address)), self.from.run(|| udp_socket(any_like(self.address))));
        let (there, back) = (there.context("bind the far socket")?, back.context("bind the near socket")?);
        back.connect(there.local_addr()?).context("connect the near socket")?;
        let mut echoed = 0;
        for number in 0..count {
            let sent: Vec<u8> = number.to_be_bytes().into_iter().cycle().take(size).collect();
            back.send(&sent).with_context(|| format!("send {size} bytes to {}", self.address))?;
            let mut buffer = vec![0; size + 1];
            let Some((length, from)) = unless_timeout(there.recv_from(&mut buffer))? else { continue };
            ensure!(buffer[..length] == sent, "packet {number} arrived changed at {}", self.address);
            there.send_to(&sent, from).with_context(|| format!("answer {from}"))?;
            let Some(length) = unless_timeout(back.recv(&mut buffer))? else { continue };
            ensure!(buffer[..length] == sent, "packet {number} came back changed from {}", self.address);
            echoed += 1;
        }
        Ok(echoed)
    }
}

fn udp_socket(address: IpAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((address, 0))?;
    socket.set_read_timeout(Some(patient(REPLY)))?;
    Ok(socket)
}

/// `None` when the time to read has passed.
fn unless_timeout<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        other => other.map(Some),
    }
}

/// The bytes that streams repeat: no two places within it look alike, so that a lost, doubled or moved piece shows.
fn pattern() -> Vec<u8> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let next = || {
        // xorshift64
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_ne_bytes()
    };
    // Not a multiple of anything that segments, pages or buffers are.
    let mut bytes: Vec<u8> = std::iter::repeat_with(next).take(1 << 16).flatten().collect();
    bytes.truncate((1 << 19) - 19);
    bytes
}

/// Writes the pattern again and again as long as `more` says so of the bytes written; returns their number.
fn send(mut stream: TcpStream, pattern: &[u8], more: impl Fn(u64) -> bool) -> io::Result<u64> {
    let mut sent = 0;
    let mut place = 0;
    while more(sent) {
        let count = stream.write(&pattern[place..])?;
        place = (place + count) % pattern.len();
        sent += count as u64;
    }
    stream.shutdown(Shutdown::Write)?;
    Ok(sent)
}

/// Reads until the end of the stream and compares with the pattern; returns the number of bytes.
fn receive(mut stream: TcpStream, pattern: &[u8]) -> Result<u64> {
    let mut buffer = vec![0; 1 << 18];
    let mut received = 0;
    let mut place = 0;
    loop {
        let room = buffer.len().min(pattern.len() - place);
        let count = stream.read(&mut buffer[..room]).with_context(|| format!("receive after {received} bytes"))?;
        if count == 0 {
            return Ok(received);
        }
        ensure!(buffer[..count] == pattern[place..place + count], "wrong bytes arrived after {received} right ones");
        place = (place + count) % pattern.len();
        received += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use ipnetwork::IpNetwork;

    use super::*;

    /// A flow of each family between two namespaces, and an address that nobody there has.
    fn flows() -> [(Flow, IpAddr); 2] {
        let (from, to) = (Netns::new().unwrap(), Netns::new().unwrap());
        from.veth("a", &to, "b", 1500).unwrap();
        [["192.0.2.1/24", "192.0.2.2/24", "192.0.2.3"], ["2001:db8::1/64", "2001:db8::2/64", "2001:db8::3"]].map(
            |[near, far, nobody]| {
                let far: IpNetwork = far.parse().unwrap();
                from.add_address("a", near.parse().unwrap()).unwrap();
                to.add_address("b", far).unwrap();
                (Flow::new(&from, &to, far.ip()), nobody.parse().unwrap())
            },
        )
    }

    #[test]
    fn pings_are_counted_and_timed() {
        for (flow, nobody) in flows() {
            let pings = ping(&flow.from, flow.address, 2).unwrap();
            assert_eq!((pings.sent, pings.received), (2, 2));
            assert!(pings.average_ms.unwrap() > 0.0);
            let lost = ping(&flow.from, nobody, 1).unwrap();
            assert_eq!(lost, Pings { sent: 1, received: 0, average_ms: None });
        }
    }

    #[test]
    fn a_stream_lasts_as_long_as_it_should_and_arrives_whole() {
        let duration = Duration::from_millis(50);
        for (flow, _) in flows() {
            let stream = flow.tcp_stream(duration).unwrap();
            assert!(stream.bytes > 0 && stream.time >= duration, "{stream:?}");
        }
    }

    #[test]
    fn a_stream_to_nowhere_fails_with_the_address() {
        for (flow, _) in flows() {
            let nowhere = Flow { from: Netns::new().unwrap(), ..flow };
            let error = format!("{:#}", nowhere.tcp_stream(Duration::ZERO).unwrap_err());
            let address = SocketAddr::new(nowhere.address, 0).to_string();
            let address = address.strip_suffix('0').unwrap();
            assert!(error.contains(&format!("connect to {address}")), "{error}");
        }
    }

    #[test]
    fn echoes_come_back_unless_they_are_lost() {
        for (flow, _) in flows() {
            assert_eq!(flow.udp_echo(3, 1000).unwrap(), 3);
            flow.from.ip(&format!("neighbour replace {} lladdr 02:00:00:00:00:01 dev a", flow.address)).unwrap();
            assert_eq!(flow.udp_echo(1, 1000).unwrap(), 0);
        }
    }
}
