//! recvmmsg and sendmmsg: many datagrams with one system call.
//!
//! [`Receiver`] owns the buffers that the kernel fills and hands packets out as slices; [`Sender`] points the kernel at replies. With this
//! file and `system.rs` all the engine's unsafe code is told. What a packet means is none of its business.
#![allow(unsafe_code, reason = "the system calls and the pointers they take")]

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

use skein_plugins::kit::edge::Reply;

use crate::limits::{BATCH, PACKET_OCTETS_MAX};

/// Octets from one packet buffer to the next: not a multiple of the page, so that the first octets of all packets do not fall into the
/// same few sets of the processor's caches.
const STRIDE: usize = PACKET_OCTETS_MAX + 1 + 192;

/// Room for one IPV6_PKTINFO or IP_PKTINFO with its header.
const CONTROL_OCTETS: usize = 64;

/// Which packet information a socket is asked for and told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum PacketInfo {
    /// None: the socket is bound to one address.
    None,
    /// IP_PKTINFO.
    V4,
    /// IPV6_RECVPKTINFO, with IPv4 addresses mapped.
    V6,
}

#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Control([u8; CONTROL_OCTETS]);

/// Memory that does not move, reached through its pointer alone: the kernel has pointers into it too.
struct Fixed<T> {
    start: NonNull<T>,
    len: usize,
}

impl<T: Copy> Fixed<T> {
    fn zeroed(len: usize) -> Fixed<T> {
        // SAFETY: only used for the C structures and octets below, for which all zeroes is a value.
        let boxed: Box<[T]> = unsafe { Box::<[T]>::new_zeroed_slice(len).assume_init() };
        let start = NonNull::from(Box::leak(boxed)).cast();
        Fixed { start, len }
    }

    /// A pointer to element `at`, which must be in range.
    fn at(&self, at: usize) -> *mut T {
        assert!(at < self.len);
        // SAFETY: in range, as just asserted.
        unsafe { self.start.as_ptr().add(at) }
    }
}

impl<T> Drop for Fixed<T> {
    fn drop(&mut self) {
        let slice = std::ptr::slice_from_raw_parts_mut(self.start.as_ptr(), self.len);
        // SAFETY: leaked from such a box in `zeroed`, and nothing borrows from it any more.
        drop(unsafe { Box::from_raw(slice) });
    }
}

/// A packet of the last batch.
pub(crate) struct Packet<'a> {
    /// Its octets.
    pub(crate) octets: &'a [u8],
    /// From where; an IPv4 client of a socket for both families is given as such.
    pub(crate) client: SocketAddr,
    /// To which address, where the socket was asked to say.
    pub(crate) local: Option<IpAddr>,
}

/// Buffers for a batch of packets.
pub(crate) struct Receiver {
    headers: Fixed<libc::mmsghdr>,
    names: Fixed<libc::sockaddr_in6>,
    controls: Fixed<Control>,
    octets: Fixed<u8>,
    _iovecs: Fixed<libc::iovec>,
    // Entries that the last call filled in.
    filled: usize,
}

impl Receiver {
    /// Takes 4 MiB of address space, of which memory is used only where packets have been.
    pub(crate) fn new() -> Receiver {
        let receiver = Receiver {
            headers: Fixed::zeroed(BATCH),
            names: Fixed::zeroed(BATCH),
            controls: Fixed::zeroed(BATCH),
            octets: Fixed::zeroed(BATCH * STRIDE),
            _iovecs: Fixed::zeroed(BATCH),
            filled: BATCH,
        };
        crate::system::no_huge_pages(receiver.octets.start.as_ptr(), receiver.octets.len);
        for at in 0..BATCH {
            let iovec = receiver._iovecs.at(at);
            // SAFETY: the pointers are to memory that `receiver` owns and that does not move.
            unsafe {
                (*iovec).iov_base = receiver.octets.at(at * STRIDE).cast();
                (*iovec).iov_len = PACKET_OCTETS_MAX;
                let header = &mut (*receiver.headers.at(at)).msg_hdr;
                header.msg_iov = iovec;
                header.msg_iovlen = 1;
                header.msg_name = receiver.names.at(at).cast();
                header.msg_control = receiver.controls.at(at).cast();
            }
        }
        receiver
    }

    /// Fills the buffers with what is queued; how many packets it was.
    pub(crate) fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        for at in 0..self.filled {
            // SAFETY: the pointer is in range, and the last batch's packets are no longer borrowed.
            let header = unsafe { &mut (*self.headers.at(at)).msg_hdr };
            header.msg_namelen = mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t;
            header.msg_controllen = CONTROL_OCTETS as _;
        }
        self.filled = 0;
        // SAFETY: `BATCH` headers whose pointers and lengths describe memory that we own.
        let count = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                self.headers.at(0),
                BATCH as libc::c_uint,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        };
        if count < 0 {
            return Err(io::Error::last_os_error());
        }
        self.filled = count as usize;
        Ok(self.filled)
    }

    /// Packet `at` of the last batch; `None` behind its end, and for one that came from no Internet address.
    pub(crate) fn packet(&self, at: usize) -> Option<Packet<'_>> {
        if at >= self.filled {
            return None;
        }
        // SAFETY: in range; the kernel has written these entries and is done with them, and `receive` needs `&mut self` to write again.
        unsafe {
            let header = &*self.headers.at(at);
            let len = (header.msg_len as usize).min(PACKET_OCTETS_MAX);
            Some(Packet {
                octets: std::slice::from_raw_parts(self.octets.at(at * STRIDE), len),
                client: read_address(&*self.names.at(at))?,
                local: read_local(&header.msg_hdr),
            })
        }
    }
}

/// Headers for a batch of replies.
pub(crate) struct Sender {
    headers: Fixed<libc::mmsghdr>,
    iovecs: Fixed<libc::iovec>,
    names: Fixed<libc::sockaddr_in6>,
    controls: Fixed<Control>,
}

impl Sender {
    /// Empty headers.
    pub(crate) fn new() -> Sender {
        Sender {
            headers: Fixed::zeroed(BATCH),
            iovecs: Fixed::zeroed(BATCH),
            names: Fixed::zeroed(BATCH),
            controls: Fixed::zeroed(BATCH),
        }
    }

    /// Sends the first replies, up to a batch; how many it was. An error is the first one's.
    pub(crate) fn send(
        &mut self,
        socket: BorrowedFd<'_>,
        replies: &[Reply],
        is_v6: bool,
        info: PacketInfo,
    ) -> io::Result<usize> {
        let count = replies.len().min(BATCH);
        for (at, reply) in replies.iter().take(BATCH).enumerate() {
            let octets = reply.bytes();
            // SAFETY: all pointers are in range and to memory of ours, or to the reply, which outlives the call; the kernel only reads.
            unsafe {
                let iovec = self.iovecs.at(at);
                (*iovec).iov_base = octets.as_ptr().cast_mut().cast();
                (*iovec).iov_len = octets.len();
                let header = &mut (*self.headers.at(at)).msg_hdr;
                header.msg_iov = iovec;
                header.msg_iovlen = 1;
                header.msg_name = self.names.at(at).cast();
                header.msg_namelen = write_address(&mut *self.names.at(at), reply.client(), is_v6);
                header.msg_control = self.controls.at(at).cast();
                header.msg_controllen = CONTROL_OCTETS as _;
                header.msg_controllen =
                    write_local(header, reply.local(), reply.client(), info) as _;
            }
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: `count` headers were filled in above.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                self.headers.at(0),
                count as libc::c_uint,
                libc::MSG_DONTWAIT as _,
            )
        };
        match sent {
            sent if sent < 0 => Err(io::Error::last_os_error()),
            sent => Ok(sent as usize),
        }
    }
}

//--- Addresses -------------------------------------------------------------------------------------

fn read_address(name: &libc::sockaddr_in6) -> Option<SocketAddr> {
    match i32::from(name.sin6_family) {
        libc::AF_INET => {
            // SAFETY: `sockaddr_in` is smaller, no more strictly aligned, and the family says that the kernel wrote one.
            let name = unsafe { &*std::ptr::from_ref(name).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from_bits(u32::from_be(name.sin_addr.s_addr));
            Some(SocketAddr::V4(SocketAddrV4::new(
                ip,
                u16::from_be(name.sin_port),
            )))
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(name.sin6_addr.s6_addr);
            let port = u16::from_be(name.sin6_port);
            Some(match ip.to_ipv4_mapped() {
                Some(ip) => SocketAddr::V4(SocketAddrV4::new(ip, port)),
                None => SocketAddr::V6(SocketAddrV6::new(ip, port, 0, name.sin6_scope_id)),
            })
        }
        _ => None,
    }
}

/// Writes the address as a socket of this family wants it; the length that counts.
fn write_address(
    name: &mut libc::sockaddr_in6,
    address: SocketAddr,
    is_v6: bool,
) -> libc::socklen_t {
    match (address, is_v6) {
        (SocketAddr::V4(address), false) => {
            let name = std::ptr::from_mut(name).cast::<libc::sockaddr_in>();
            // SAFETY: `sockaddr_in` is smaller and no more strictly aligned.
            let name = unsafe { &mut *name };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = address.port().to_be();
            name.sin_addr.s_addr = address.ip().to_bits().to_be();
            mem::size_of::<libc::sockaddr_in>() as libc::socklen_t
        }
        (address, _) => {
            let (ip, scope) = match address {
                SocketAddr::V4(address) => (address.ip().to_ipv6_mapped(), 0),
                SocketAddr::V6(address) => (*address.ip(), address.scope_id()),
            };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = address.port().to_be();
            name.sin6_flowinfo = 0;
            name.sin6_addr.s6_addr = ip.octets();
            name.sin6_scope_id = scope;
            mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// The address a packet was sent to.
fn read_local(header: &libc::msghdr) -> Option<IpAddr> {
    if header.msg_controllen == 0 {
        return None;
    }
    // SAFETY: the kernel has written `msg_controllen` octets of well-formed control messages, which the CMSG functions walk.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while let Some(control) = message.as_ref() {
            match (control.cmsg_level, control.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info: libc::in_pktinfo = libc::CMSG_DATA(control)
                        .cast::<libc::in_pktinfo>()
                        .read_unaligned();
                    return Some(
                        Ipv4Addr::from_bits(u32::from_be(info.ipi_spec_dst.s_addr)).into(),
                    );
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info: libc::in6_pktinfo = libc::CMSG_DATA(control)
                        .cast::<libc::in6_pktinfo>()
                        .read_unaligned();
                    return Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).to_canonical());
                }
                _ => message = libc::CMSG_NXTHDR(header, control),
            }
        }
    }
    None
}

/// Says which address a reply leaves from; the octets of control messages that makes.
///
/// # Safety
/// `header.msg_control` points to [`CONTROL_OCTETS`] octets, which `header.msg_controllen` says too.
unsafe fn write_local(
    header: &libc::msghdr,
    local: SocketAddr,
    client: SocketAddr,
    info: PacketInfo,
) -> usize {
    // SAFETY: the caller's promise; both structures with their headers fit in `CONTROL_OCTETS`.
    unsafe {
        let Some(control) = libc::CMSG_FIRSTHDR(header).as_mut() else {
            return 0;
        };
        match (info, local.ip()) {
            (PacketInfo::V4, IpAddr::V4(ip)) if !ip.is_unspecified() => {
                let mut data: libc::in_pktinfo = MaybeUninit::zeroed().assume_init();
                data.ipi_spec_dst.s_addr = ip.to_bits().to_be();
                fill(control, libc::IPPROTO_IP, libc::IP_PKTINFO, data)
            }
            (PacketInfo::V6, ip) if !ip.is_unspecified() => {
                let mut data: libc::in6_pktinfo = MaybeUninit::zeroed().assume_init();
                data.ipi6_addr.s6_addr = match ip {
                    IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
                    IpAddr::V6(ip) => ip.octets(),
                };
                // A link-local address means something only together with its link.
                if let SocketAddr::V6(client) = client {
                    data.ipi6_ifindex = client.scope_id() as _;
                }
                fill(control, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, data)
            }
            _ => 0,
        }
    }
}

/// # Safety
/// `control` is the first header of a buffer that has room for `T` behind it.
unsafe fn fill<T>(control: &mut libc::cmsghdr, level: i32, kind: i32, data: T) -> usize {
    let size = mem::size_of::<T>() as libc::c_uint;
    // SAFETY: the caller's promise.
    unsafe {
        control.cmsg_level = level;
        control.cmsg_type = kind;
        control.cmsg_len = libc::CMSG_LEN(size) as _;
        libc::CMSG_DATA(control).cast::<T>().write_unaligned(data);
        libc::CMSG_SPACE(size) as usize
    }
}
