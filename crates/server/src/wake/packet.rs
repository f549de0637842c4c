//! Wake-on-LAN packets, at which a sleeping network card wakes its machine.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    str::FromStr,
};

/// The discard port: the card reads every packet, whatever its port.
const PORT: u16 = 9;

/// The address of a network card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mac([u8; 6]);

impl FromStr for Mac {
    type Err = ();

    /// Reads an address such as `52:54:00:12:34:56`.
    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split(':');
        let mut bytes = [0; 6];
        for byte in &mut bytes {
            let part = parts.next().filter(|part| part.len() == 2 && !part.starts_with('+')).ok_or(())?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| ())?;
        }
        if parts.next().is_some() { Err(()) } else { Ok(Self(bytes)) }
    }
}

impl Mac {
    /// Returns the packet: six bytes of ones, then the address sixteen times.
    pub(super) fn packet(self) -> [u8; 102] {
        let mut packet = [0xff; 102];
        for place in packet[6..].chunks_exact_mut(6) {
            place.copy_from_slice(&self.0);
        }
        packet
    }
}

/// The reasons for which no packet was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum WakeError {
    #[error("the server is on no network with a broadcast address")]
    NoNetwork,
    #[error("the packet could not be sent: {0}")]
    Send(#[from] io::Error),
}

/// Sends the packets on every network of this machine, or to these addresses.
pub(super) fn send(macs: &[Mac], targets: Option<&[SocketAddr]>) -> Result<(), WakeError> {
    let routes = match targets {
        Some(targets) => targets.iter().map(|to| (Ipv4Addr::UNSPECIFIED, *to)).collect(),
        None => broadcasts()?,
    };
    let mut last = Err(WakeError::NoNetwork);
    for (from, to) in routes {
        match send_on(macs, from, to) {
            Ok(()) => last = Ok(()),
            Err(error) if last.is_err() => last = Err(error.into()),
            Err(error) => tracing::debug!(%error, %to, "wake-on-LAN packet not sent"),
        }
    }
    last
}

fn send_on(macs: &[Mac], from: Ipv4Addr, to: SocketAddr) -> io::Result<()> {
    let socket = UdpSocket::bind((from, 0))?;
    socket.set_broadcast(true)?;
    for mac in macs {
        socket.send_to(&mac.packet(), to)?;
    }
    Ok(())
}

/// Returns this machine's address in each of its networks, and the broadcast address there.
fn broadcasts() -> io::Result<Vec<(Ipv4Addr, SocketAddr)>> {
    let route = |interface: if_addrs::Interface| match interface.addr {
        if_addrs::IfAddr::V4(own) if !own.ip.is_loopback() => {
            Some((own.ip, SocketAddr::new(IpAddr::V4(broadcast(own.ip, own.netmask)?), PORT)))
        }
        _ => None,
    };
    Ok(if_addrs::get_if_addrs()?.into_iter().filter_map(route).collect())
}

/// Returns the broadcast address of a network, which an interface need not know; `None` if the network has one host.
fn broadcast(own: Ipv4Addr, netmask: Ipv4Addr) -> Option<Ipv4Addr> {
    let hosts = !u32::from(netmask);
    (hosts > 1).then(|| Ipv4Addr::from(u32::from(own) | hosts))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packet_repeats_the_address() {
        let mac: Mac = "52:54:00:aB:34:56".parse().unwrap();
        let packet = mac.packet();
        assert_eq!(packet[..6], [0xff; 6]);
        assert!(packet[6..].chunks(6).all(|place| place == [0x52, 0x54, 0, 0xab, 0x34, 0x56]));
        assert_eq!(packet.len(), 102);
    }

    #[test]
    fn malformed_addresses_are_refused() {
        for text in [
            "",
            "52:54:00:12:34",
            "52:54:00:12:34:56:78",
            "5:54:00:12:34:56",
            "zz:54:00:12:34:56",
            "+1:54:00:12:34:56",
        ] {
            assert_eq!(text.parse::<Mac>(), Err(()), "{text}");
        }
    }

    #[test]
    fn the_broadcast_address_follows_from_the_netmask() {
        let broadcast = |own: [u8; 4], mask: [u8; 4]| super::broadcast(own.into(), mask.into());
        assert_eq!(broadcast([10, 213, 77, 1], [255, 255, 255, 0]), Some([10, 213, 77, 255].into()));
        assert_eq!(broadcast([10, 1, 2, 3], [255, 252, 0, 0]), Some([10, 3, 255, 255].into()));
        assert_eq!(broadcast([10, 8, 0, 2], [255, 255, 255, 255]), None, "the end of a tunnel");
    }

    #[test]
    fn without_a_network_nothing_is_sent() {
        assert!(matches!(send(&[], Some(&[])), Err(WakeError::NoNetwork)));
    }
}
