//! The one packet of a capture, from a pcap or pcapng file.

use std::{fs::File, path::Path};

use anyhow::{Context as _, Result, anyhow, bail};
use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};

/// The most that is read of a file at once: more than any block with a packet that a program can be run on.
const BUFFER: usize = 1 << 18;

/// The Ethernet frame in the file.
///
/// # Errors
/// When the file cannot be read, has not exactly one packet, or that was not captured whole on an Ethernet device.
pub(super) fn frame(path: &Path) -> Result<Vec<u8>> {
    let file = File::open(path).with_context(|| format!("read the capture {}", path.display()))?;
    let reading = || format!("read the capture {}; write it with `tcpdump -i INTERFACE -s 0 -w FILE`", path.display());
    let mut frames = frames(file).with_context(reading)?;
    match (frames.pop(), frames.is_empty()) {
        (Some(frame), true) => Ok(frame),
        (Some(_), false) => bail!(
            "{} has more than one packet; cut out the one to trace: `tcpdump -r FILE -c 1 -w ONE FILTER`",
            path.display()
        ),
        (None, _) => bail!("{} has no packet", path.display()),
    }
}

/// The frames of the file: two of them stand for all that are more than one.
fn frames(file: File) -> Result<Vec<Vec<u8>>> {
    let mut reader = create_reader(BUFFER, file).map_err(|error| anyhow!("{error}"))?;
    // A pcapng file numbers its interfaces.
    let mut links = Vec::new();
    let mut frames = Vec::new();
    while frames.len() < 2 {
        let used = match reader.next() {
            Ok((used, block)) => {
                match block {
                    PcapBlockOwned::LegacyHeader(header) => links = vec![header.network],
                    PcapBlockOwned::Legacy(packet) => frames.push(whole(packet.data, packet.origlen, links.first())?),
                    PcapBlockOwned::NG(Block::SectionHeader(_)) => links.clear(),
                    PcapBlockOwned::NG(Block::InterfaceDescription(interface)) => links.push(interface.linktype),
                    PcapBlockOwned::NG(Block::EnhancedPacket(packet)) => {
                        let padded = packet.data.len().min(packet.caplen as usize);
                        frames.push(whole(&packet.data[..padded], packet.origlen, links.get(packet.if_id as usize))?);
                    }
                    PcapBlockOwned::NG(Block::SimplePacket(packet)) => {
                        let padded = packet.data.len().min(packet.origlen as usize);
                        frames.push(whole(&packet.data[..padded], packet.origlen, links.first())?);
                    }
                    PcapBlockOwned::NG(_) => {}
                }
                used
            }
            Err(PcapError::Eof) => break,
            Err(PcapError::Incomplete(_)) => {
                reader.refill().map_err(|error| anyhow!("{error}"))?;
                continue;
            }
            Err(error) => bail!("{error}"),
        };
        reader.consume(used);
    }
    Ok(frames)
}

/// The frame that was captured, `length` bytes long on its device of kind `link`.
fn whole(captured: &[u8], length: u32, link: Option<&Linktype>) -> Result<Vec<u8>> {
    match link {
        Some(&Linktype::ETHERNET) => {}
        Some(other) => bail!("its packets are of link type {}, not Ethernet", other.0),
        None => bail!("it does not say what it was captured on"),
    }
    if captured.len() < length as usize {
        bail!("it has {} bytes of a packet of {length}", captured.len());
    }
    Ok(captured.to_vec())
}
