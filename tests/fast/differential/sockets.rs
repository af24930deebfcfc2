//! The sockets of a script, and what they hear.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    time::Duration,
};

use nix::sys::socket::SockFlag;

use crate::ground::connecting;

/// An open socket.
#[derive(Debug)]
pub(super) enum Socket {
    /// With whom it speaks.
    Udp(UdpSocket, Option<SocketAddr>),
    Tcp(TcpStream),
    Listener(TcpListener),
}

impl Socket {
    pub(super) fn udp(address: IpAddr, port: u16) -> io::Result<Self> {
        Ok(Self::Udp(UdpSocket::bind((address, port))?, None))
    }

    pub(super) fn listener(address: IpAddr, port: u16) -> io::Result<Self> {
        let socket = TcpListener::bind((address, port))?;
        Ok(Self::Listener(socket))
    }

    /// Begins a TCP connection.
    pub(super) fn connecting(from: SocketAddr, to: SocketAddr) -> io::Result<Self> {
        let stream = connecting(from, to, SockFlag::SOCK_NONBLOCK)?;
        stream.set_nodelay(true)?;
        Ok(Self::Tcp(stream))
    }

    pub(super) fn local(&self) -> SocketAddr {
        match self {
            Self::Udp(socket, _) => socket.local_addr(),
            Self::Tcp(socket) => socket.local_addr(),
            Self::Listener(socket) => socket.local_addr(),
        }
        .expect("the address of a bound socket")
    }

    /// IP protocol number.
    pub(super) fn protocol(&self) -> u8 {
        if matches!(self, Self::Udp(..)) { 17 } else { 6 }
    }

    pub(super) fn stream(&self) -> &TcpStream {
        let Self::Tcp(stream) = self else { panic!("{self:?} is no connection") };
        stream
    }

    pub(super) fn accept(&self) -> io::Result<(Self, SocketAddr)> {
        let Self::Listener(listener) = self else { panic!("{self:?} does not listen") };
        let (stream, from) = listener.accept()?;
        stream.set_nodelay(true)?;
        Ok((Self::Tcp(stream), from))
    }

    pub(super) fn say(&mut self, to: Option<SocketAddr>, word: &[u8]) -> io::Result<()> {
        match self {
            Self::Udp(socket, peer) => {
                *peer = to.or(*peer);
                socket.send_to(word, peer.expect("somebody to speak to")).map(drop)
            }
            Self::Tcp(stream) => stream.write_all(word),
            Self::Listener(_) => panic!("{self:?} cannot speak"),
        }
    }

    /// Makes a UDP socket hear nobody but whom it last spoke with.
    pub(super) fn connect(&self) -> io::Result<()> {
        let Self::Udp(socket, Some(peer)) = self else { panic!("{self:?} has nobody to connect to") };
        socket.connect(peer)
    }

    /// The next word, and whom it seems to come from.
    pub(super) fn hear(&mut self, limit: Duration) -> io::Result<(Vec<u8>, SocketAddr)> {
        let mut word = [0; 2048];
        let (length, from) = match self {
            Self::Udp(socket, peer) => {
                socket.set_read_timeout(Some(limit))?;
                let (length, from) = socket.recv_from(&mut word)?;
                *peer = Some(from);
                (length, from)
            }
            Self::Tcp(stream) => {
                stream.set_read_timeout(Some(limit))?;
                (stream.read(&mut word)?, stream.peer_addr()?)
            }
            Self::Listener(_) => panic!("{self:?} hears no words"),
        };
        Ok((word[..length].to_vec(), from))
    }
}
