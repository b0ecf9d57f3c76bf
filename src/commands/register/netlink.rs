//! The system's addresses, and word of their changes, from the kernel over netlink (rtnetlink(7)).

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::FutureExt;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};

use super::addresses::Found;

/// Groups of changes to hear of: links, IPv4 addresses, IPv6 addresses.
const GROUPS: [u32; 3] = [1, 5, 9];
/// Routes of IPv4 and IPv6, which say which address is the primary one. A router's change all the time.
const GROUPS_OF_ROUTES: [u32; 2] = [7, 11];
/// The kernel answers a dump at once; this is for a kernel that does not.
const PATIENCE: Duration = Duration::from_secs(2);
/// A dump during which something changed is repeated, so often at most.
const TRIES: usize = 8;
/// Messages that are read in one go before the loop gets its turn again.
const MESSAGES_AT_ONCE: usize = 1_024;

/// Hears of changes of links, addresses and routes.
pub(super) struct Changes(TokioSocket);

impl Changes {
    /// Hears of everything that changes from now on.
    pub(super) fn subscribe(routes: bool) -> io::Result<Changes> {
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        socket.socket_mut().bind(&SocketAddr::new(0, 0))?;
        let routes = GROUPS_OF_ROUTES.iter().filter(|_| routes);
        for group in GROUPS.iter().chain(routes) {
            socket.socket_mut().add_membership(*group)?;
        }
        Ok(Changes(socket))
    }

    /// Waits for a change. What changed is not said: the whole is read again, which is cheap and never wrong.
    pub(super) async fn next(&mut self) -> io::Result<()> {
        heard(self.0.recv_from_full().await)?;
        for _ in 0..MESSAGES_AT_ONCE {
            match self.0.recv_from_full().now_or_never() {
                Some(message) => heard(message)?,
                None => break,
            }
        }
        Ok(())
    }
}

/// So much happened that the kernel could not keep it: then something has changed for sure.
fn heard(message: io::Result<(Vec<u8>, SocketAddr)>) -> io::Result<()> {
    match message {
        Err(error) if error.raw_os_error() != Some(libc::ENOBUFS) => Err(error),
        _ => Ok(()),
    }
}

/// All addresses of the system.
pub(super) fn addresses() -> io::Result<Vec<Found>> {
    let mut links = HashMap::new();
    dump(
        RouteNetlinkMessage::GetLink(LinkMessage::default()),
        |message| {
            if let RouteNetlinkMessage::NewLink(link) = message {
                let name = link
                    .attributes
                    .iter()
                    .find_map(|attribute| match attribute {
                        LinkAttribute::IfName(name) => Some(name.clone()),
                        _ => None,
                    });
                if let Some(name) = name {
                    let up = link.header.flags.contains(LinkFlags::Up);
                    links.insert(link.header.index, (name, up));
                }
            }
        },
    )?;
    let mut found = Vec::new();
    dump(
        RouteNetlinkMessage::GetAddress(AddressMessage::default()),
        |message| {
            if let RouteNetlinkMessage::NewAddress(address) = message
                && let Some(ip) = ip(&address)
            {
                // An interface that came between the two dumps has no name yet; word of it is on its way.
                let Some((interface, up)) = links.get(&address.header.index).cloned() else {
                    return;
                };
                found.push(judge(&address, ip, interface, up));
            }
        },
    )?;
    Ok(found)
}

/// The machine's own address: on a link between two, `Address` is the other end's.
fn ip(address: &AddressMessage) -> Option<IpAddr> {
    let of = |wanted: fn(&AddressAttribute) -> Option<IpAddr>| {
        address.attributes.iter().find_map(wanted)
    };
    of(|attribute| match attribute {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    })
    .or_else(|| {
        of(|attribute| match attribute {
            AddressAttribute::Address(ip) => Some(*ip),
            _ => None,
        })
    })
}

fn judge(address: &AddressMessage, ip: IpAddr, interface: String, up: bool) -> Found {
    let all = address
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Flags(flags) => Some(*flags),
            _ => None,
        });
    // Old kernels have only the eight flags of the header, which are the first eight of the others.
    let flags = all.unwrap_or_else(|| {
        let header: AddressHeaderFlags = address.header.flags;
        AddressFlags::from_bits_retain(u32::from(header.bits()))
    });
    let has = |bit: u32| flags.bits() & bit != 0;
    Found {
        ip,
        interface,
        up,
        // The same bit says of an IPv4 address that it is not the first of its network, which is no reason to leave it out.
        temporary: ip.is_ipv6() && has(IFA_F_TEMPORARY),
        deprecated: has(IFA_F_DEPRECATED),
        tentative: ip.is_ipv6() && has(IFA_F_TENTATIVE),
        duplicate: has(IFA_F_DADFAILED),
    }
}

/// Flags of `linux/if_addr.h`.
const IFA_F_TEMPORARY: u32 = 0x01;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;

/// Asks for all of something.
fn dump(request: RouteNetlinkMessage, mut each: impl FnMut(RouteNetlinkMessage)) -> io::Result<()> {
    let mut collected = Vec::new();
    for _ in 0..TRIES {
        collected.clear();
        if dump_once(request.clone(), &mut collected)? {
            collected.into_iter().for_each(&mut each);
            return Ok(());
        }
    }
    // Something changes all the time; the last answer is as good as the next, and word of the changes brings us back.
    collected.into_iter().for_each(each);
    Ok(())
}

/// Whether nothing changed while the kernel told.
fn dump_once(
    request: RouteNetlinkMessage,
    into: &mut Vec<RouteNetlinkMessage>,
) -> io::Result<bool> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    socket2::SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_DUMP | NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
    message.finalize();
    let mut octets = vec![0; message.buffer_len()];
    message.serialize(&mut octets);
    socket.send_to(&octets, &SocketAddr::new(0, 0), 0)?;
    let mut steady = true;
    loop {
        let (datagram, _) = socket.recv_from_full()?;
        let mut rest = datagram.as_slice();
        // A message is at least its header long, or there is none.
        while rest.len() >= 16 {
            let message = match NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest) {
                Ok(message) => message,
                // One that cannot be read is passed over by the length at its head.
                Err(error) => {
                    tracing::debug!("netlink: {error}");
                    let Some(behind) = length(rest).and_then(|length| rest.get(length..)) else {
                        return Err(io::Error::other("a netlink message cannot be read"));
                    };
                    rest = behind;
                    continue;
                }
            };
            steady &= message.header.flags & NLM_F_DUMP_INTR == 0;
            match message.payload {
                NetlinkPayload::Done(_) => return Ok(steady),
                NetlinkPayload::Error(error) => return Err(error.to_io()),
                NetlinkPayload::InnerMessage(inner) => into.push(inner),
                _ => {}
            }
            let Some(behind) = length(rest).and_then(|length| rest.get(length..)) else {
                break;
            };
            rest = behind;
        }
    }
}

/// The length of the first message with what fills it up to four octets (netlink(7)).
fn length(octets: &[u8]) -> Option<usize> {
    let head: [u8; 4] = octets.get(..4)?.try_into().ok()?;
    let length = u32::from_ne_bytes(head) as usize;
    (length >= 16).then(|| length.next_multiple_of(4).min(octets.len()))
}
