//! Batches of datagrams on one connected socket. All the unsafe code of the benchmark is here.

#![expect(
    unsafe_code,
    reason = "recvmmsg and sendmmsg have no safe wrapper in the tree"
)]

use std::io;
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

/// Datagrams in one call.
pub(crate) const BATCH: usize = 64;
/// Octets kept of each datagram; the benchmark's answers are smaller.
pub(crate) const OCTETS: usize = 2048;

/// Buffers for one direction.
pub(crate) struct Batch {
    buffers: Box<[[u8; OCTETS]; BATCH]>,
    lengths: [usize; BATCH],
}

impl Batch {
    /// Empty buffers.
    pub(crate) fn new() -> Batch {
        Batch {
            buffers: Box::new([[0; OCTETS]; BATCH]),
            lengths: [0; BATCH],
        }
    }

    /// Puts a datagram in place `i`; longer ones are cut.
    pub(crate) fn set(&mut self, i: usize, packet: &[u8]) {
        let length = packet.len().min(OCTETS);
        self.buffers[i][..length].copy_from_slice(&packet[..length]);
        self.lengths[i] = length;
    }

    /// Datagram `i`.
    pub(crate) fn get(&self, i: usize) -> &[u8] {
        &self.buffers[i][..self.lengths[i].min(OCTETS)]
    }

    /// Sends the first `count`; how many went out, 0 when the socket is full.
    pub(crate) fn send(&mut self, socket: &UdpSocket, count: usize) -> io::Result<usize> {
        let (mut headers, _vectors) = self.headers(count, |lengths, i| lengths[i]);
        // SAFETY: `headers` points into `_vectors`, which point into `self.buffers`; all outlive the call.
        let sent = unsafe {
            libc::sendmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                count.min(BATCH) as u32,
                libc::MSG_DONTWAIT,
            )
        };
        done(sent)
    }

    /// Receives what is there; how many, 0 when there is nothing.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let (mut headers, _vectors) = self.headers(BATCH, |_, _| OCTETS);
        // SAFETY: as in `send`; the kernel writes at most OCTETS into each buffer.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_DONTWAIT,
                std::ptr::null_mut(),
            )
        };
        let received = done(received)?;
        for (length, header) in self.lengths.iter_mut().zip(&headers[..received]) {
            *length = header.msg_len as usize;
        }
        Ok(received)
    }

    fn headers(
        &mut self,
        count: usize,
        length: impl Fn(&[usize; BATCH], usize) -> usize,
    ) -> (Box<[libc::mmsghdr; BATCH]>, Box<[libc::iovec; BATCH]>) {
        // SAFETY: both are plain C structures for which all zeroes is a valid value.
        let (mut headers, mut vectors): (Box<[libc::mmsghdr; BATCH]>, Box<[libc::iovec; BATCH]>) =
            unsafe { (Box::new(std::mem::zeroed()), Box::new(std::mem::zeroed())) };
        for i in 0..count.min(BATCH) {
            vectors[i].iov_base = self.buffers[i].as_mut_ptr().cast();
            vectors[i].iov_len = length(&self.lengths, i);
            headers[i].msg_hdr.msg_iov = &raw mut vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
        }
        (headers, vectors)
    }
}

fn done(result: libc::c_int) -> io::Result<usize> {
    if result >= 0 {
        return Ok(result as usize);
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(0),
        // An earlier datagram was refused: the server is not there yet.
        io::ErrorKind::ConnectionRefused => Ok(0),
        _ => Err(error),
    }
}

/// Turns every datagram on a loopback port around, in batches, for ever: what receiving and sending alone cost.
pub(crate) fn echo(port: u16) -> io::Result<()> {
    let socket = UdpSocket::bind(("127.0.0.1", port))?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(8 << 20)?;
    let mut buffers = Box::new([[0u8; OCTETS]; BATCH]);
    // SAFETY: plain C structures for which all zeroes is a valid value.
    let mut headers: Box<[libc::mmsghdr; BATCH]> = unsafe { Box::new(std::mem::zeroed()) };
    // SAFETY: the same.
    let mut vectors: Box<[libc::iovec; BATCH]> = unsafe { Box::new(std::mem::zeroed()) };
    // SAFETY: the same.
    let mut names: Box<[libc::sockaddr_in; BATCH]> = unsafe { Box::new(std::mem::zeroed()) };
    loop {
        for i in 0..BATCH {
            vectors[i] = libc::iovec {
                iov_base: buffers[i].as_mut_ptr().cast(),
                iov_len: OCTETS,
            };
            headers[i].msg_hdr.msg_iov = &raw mut vectors[i];
            headers[i].msg_hdr.msg_iovlen = 1;
            headers[i].msg_hdr.msg_name = (&raw mut names[i]).cast();
            headers[i].msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as u32;
        }
        // SAFETY: every pointer in `headers` leads into an array above that outlives the call.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                headers.as_mut_ptr(),
                BATCH as u32,
                libc::MSG_WAITFORONE,
                std::ptr::null_mut(),
            )
        };
        for i in 0..usize::try_from(received).unwrap_or(0) {
            buffers[i][2] |= 0x80;
            vectors[i].iov_len = (headers[i].msg_len as usize).min(OCTETS);
        }
        let mut sent = 0;
        while sent < received {
            // SAFETY: as above; `sent` is below BATCH.
            let more = unsafe {
                libc::sendmmsg(
                    socket.as_raw_fd(),
                    headers.as_mut_ptr().add(sent as usize),
                    (received - sent) as u32,
                    0,
                )
            };
            if more <= 0 {
                break;
            }
            sent += more;
        }
    }
}
