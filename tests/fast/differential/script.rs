//! Scripts: what happens in a world, step by step.

use std::time::Duration;

/// What a socket is called in a script.
pub(crate) type Name = &'static str;

/// One thing that happens. What can be seen of it goes into the world's log.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// Opens the UDP socket `socket` at a place and port.
    Udp(Name, Place, u16),
    /// Opens a TCP socket at a place and port that listens.
    Listen(Name, Place, u16),
    /// Opens a TCP connection from a place and port of its own, without waiting for what comes of it.
    Connect(Name, Place, u16, (&'static str, u16)),
    /// Waits until a connection stands or is refused.
    Answered(Name, Expect),
    /// Accepts what a listening socket has.
    Accept(Name, Name),
    /// Sends a word: where to, or to whom the socket last heard from or spoke.
    Say(Name, Option<(&'static str, u16)>, &'static str),
    /// Waits for a word, or for silence.
    Hear(Name, Expect),
    /// Takes what has come, if anything has.
    HearIfAny(Name),
    /// Sends a word of so many bytes, to whom the socket last spoke.
    SayMuch(Name, usize),
    /// Connects a UDP socket to whom it last spoke with, so that it is told of errors.
    ConnectUdp(Name),
    /// Lets two sockets exchange words until the nodes carry them on the fast path, where there is one.
    Engage(Name, Name, &'static [Place]),
    /// Lets two sockets exchange so many words. In a world with a fast path, these nodes must carry them there, and netfilter
    /// of all others must see them; without, netfilter must see all.
    Talk(Name, Name, u32, &'static [Place]),
    /// Lets two sockets exchange words for so long.
    TalkFor(Name, Name, Duration),
    /// Lets one socket speak to another until nothing arrives any more.
    TalkUntilSilent(Name, Name),
    /// Lets a connected UDP socket speak until it is told that nobody listens.
    TalkUntilRefused(Name),
    /// Lets two sockets try until a word arrives each way.
    TalkUntilHeard(Name, Name),
    /// Lets time pass, for timeouts that the kernel keeps.
    Idle(Duration),
    /// Sends no more on a TCP connection.
    Shutdown(Name),
    /// Closes sockets.
    Close(&'static [Name]),
    /// Closes a TCP connection with RST.
    Reset(Name),
    /// Changes rules of nftables.
    Nft(Place, String),
    /// Changes interfaces or routes with iproute2.
    Ip(Place, &'static str),
    /// Waits until the overlay device of a node follows an underlay of this MTU.
    AwaitMtu(Place, u32),
    /// Sets one of conntrack's sysctls.
    Sysctl(Place, &'static str, &'static str),
    /// Notes what conntrack of a node knows of a port.
    Conntrack(Place, u16),
    /// Puts an end to the container `There` and starts another with its address; sockets of the old one are lost.
    Replace,
    /// Gives the subnet of the second node to the third, with another container `There`.
    HandOver,
}

/// Whether a script expects something to come. Only a matter of how long it is waited for: both worlds must agree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expect {
    Something,
    Nothing,
}

/// A namespace of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    /// The nodes. The third has no agent at first: it is somebody on the underlay.
    One,
    Two,
    Three,
    /// Containers on the first node.
    Here,
    Here2,
    Here3,
    /// Containers on the second node.
    There,
    There2,
}
