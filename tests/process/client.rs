//! Questions and answers as bytes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};

use crate::server::PATIENCE;

/// A question for A of this name, with this ID.
pub(crate) fn question(id: u16, name: &str) -> Vec<u8> {
    let mut message = id.to_be_bytes().to_vec();
    message.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(label.len() as u8);
        message.extend(label.as_bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// The same with an OPT that is padded (RFC 7830) to make the message this long.
pub(crate) fn padded(id: u16, name: &str, len: usize) -> Vec<u8> {
    let mut message = question(id, name);
    message[11] = 1;
    let data = len - message.len() - 11;
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0]);
    message.extend((data as u16).to_be_bytes());
    message.extend(12u16.to_be_bytes());
    message.extend((data as u16 - 4).to_be_bytes());
    message.resize(len, 0);
    message
}

pub(crate) fn id(message: &[u8]) -> u16 {
    u16::from_be_bytes([message[0], message[1]])
}

pub(crate) fn rcode(message: &[u8]) -> u8 {
    message[3] & 15
}

/// A datagram client of one server address.
pub(crate) struct Udp(pub(crate) UdpSocket);

impl Udp {
    pub(crate) fn connect(address: SocketAddr) -> Udp {
        let any = if address.is_ipv4() {
            "127.0.0.1:0"
        } else {
            "[::1]:0"
        };
        let socket = UdpSocket::bind(any).expect("a free port");
        socket.connect(address).expect("an address of this machine");
        socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
        Udp(socket)
    }

    pub(crate) fn send(&self, message: &[u8]) {
        self.0.send(message).expect("it is there");
    }

    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_535];
        let len = self.0.recv(&mut buffer).expect("an answer");
        buffer.truncate(len);
        buffer
    }

    /// Asks and waits for the answer with the same ID.
    pub(crate) fn ask(&self, message: &[u8]) -> Vec<u8> {
        self.send(message);
        loop {
            let answer = self.receive();
            if id(&answer) == id(message) {
                return answer;
            }
        }
    }
}

/// A connection.
pub(crate) struct Tcp(pub(crate) TcpStream);

impl Tcp {
    pub(crate) fn connect(address: SocketAddr) -> Tcp {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
        stream.set_nodelay(true).expect("a connection");
        Tcp(stream)
    }

    pub(crate) fn send(&mut self, message: &[u8]) {
        self.0.write_all(&framed(message)).expect("it reads");
    }

    pub(crate) fn receive(&mut self) -> Vec<u8> {
        self.try_receive().expect("an answer")
    }

    pub(crate) fn try_receive(&mut self) -> std::io::Result<Vec<u8>> {
        let mut len = [0; 2];
        self.0.read_exact(&mut len)?;
        let mut message = vec![0; usize::from(u16::from_be_bytes(len))];
        self.0.read_exact(&mut message)?;
        Ok(message)
    }

    /// Waits until the server closes.
    pub(crate) fn wait_for_end(&mut self) {
        let mut buffer = [0; 4096];
        // A reset is an end as well.
        while self.0.read(&mut buffer).is_ok_and(|len| len > 0) {}
    }
}

pub(crate) fn framed(message: &[u8]) -> Vec<u8> {
    let mut framed = (message.len() as u16).to_be_bytes().to_vec();
    framed.extend(message);
    framed
}
