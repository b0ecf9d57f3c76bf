//! The few things that the standard library does not ask the system for, each in a safe function.
#![allow(unsafe_code, reason = "calls into libc")]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use crate::listen::mmsg::PacketInfo;

/// Asks for packet information on a socket that is bound to no single address.
pub(crate) fn ask_packet_info(socket: BorrowedFd<'_>, info: PacketInfo) -> io::Result<()> {
    match info {
        PacketInfo::None => Ok(()),
        PacketInfo::V4 => set_option(socket, libc::IPPROTO_IP, libc::IP_PKTINFO, 1),
        PacketInfo::V6 => set_option(socket, libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO, 1),
    }
}

/// Lets the kernel queue so many octets on a socket, past `net.core.rmem_max` if we may.
pub(crate) fn set_receive_buffer(socket: BorrowedFd<'_>, octets: usize) -> io::Result<()> {
    let octets = i32::try_from(octets).unwrap_or(i32::MAX);
    set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, octets)
        .or_else(|_| set_option(socket, libc::SOL_SOCKET, libc::SO_RCVBUF, octets))
}

/// Never lets a path MTU that somebody claims cut our datagrams (RFC 8085 §3.2; no fragments are sent below 1,232 octets anyway).
pub(crate) fn omit_path_mtu(socket: BorrowedFd<'_>, is_v6: bool) -> io::Result<()> {
    match is_v6 {
        false => set_option(
            socket,
            libc::IPPROTO_IP,
            libc::IP_MTU_DISCOVER,
            libc::IP_PMTUDISC_OMIT,
        ),
        true => set_option(
            socket,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_OMIT,
        ),
    }
}

fn set_option(socket: BorrowedFd<'_>, level: i32, name: i32, value: i32) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which lives on.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            std::ptr::from_ref(&value).cast(),
            size_of::<i32>() as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Asks the kernel not to back this memory with huge pages: of a buffer that is mostly unused, only what is used should cost memory.
pub(crate) fn no_huge_pages(start: *mut u8, len: usize) {
    const PAGE: usize = 4096;
    let first = (start as usize).next_multiple_of(PAGE);
    let end = (start as usize + len) / PAGE * PAGE;
    if first < end {
        // SAFETY: advice about whole pages of memory that the caller owns; it changes no content, and failing changes nothing.
        unsafe {
            libc::madvise(
                first as *mut libc::c_void,
                end - first,
                libc::MADV_NOHUGEPAGE,
            );
        }
    }
}

/// Year, month, day, hour, minute and second where this machine is.
pub(crate) fn local_time() -> [i32; 6] {
    // SAFETY: no pointer to read; `time` only returns.
    let now = unsafe { libc::time(std::ptr::null_mut()) };
    let mut parts = std::mem::MaybeUninit::<libc::tm>::zeroed();
    // SAFETY: both pointers are to memory of ours; a `tm` of zeroes is a valid one, should the call fail.
    let parts = unsafe {
        libc::localtime_r(&now, parts.as_mut_ptr());
        parts.assume_init()
    };
    [
        parts.tm_year + 1900,
        parts.tm_mon + 1,
        parts.tm_mday,
        parts.tm_hour,
        parts.tm_min,
        parts.tm_sec,
    ]
}

/// Raises the limit of open files to what the system allows; what it is then.
pub(crate) fn raise_descriptor_limit() -> u64 {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is ours to write.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 1024;
    }
    let raised = libc::rlimit {
        rlim_cur: limit.rlim_max,
        ..limit
    };
    // SAFETY: `raised` is only read.
    if limit.rlim_cur < limit.rlim_max
        && unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) } == 0
    {
        return raised.rlim_cur;
    }
    limit.rlim_cur
}

/// Gives memory that the allocator keeps but nobody uses back to the system.
pub(crate) fn trim_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: takes no pointer and may be called at any time.
    unsafe {
        libc::malloc_trim(0);
    }
}
