//! [`Asker`]: asks a server one question at a time, over UDP and, where that is not enough, over TCP.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use skein_plugins::kit::wire::message::{HEADER_OCTETS, question, records};
use skein_plugins::kit::wire::{Class, Rcode, Rtype, Section, name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::rr::Rr;

/// Times that a question is sent over UDP: a packet may be lost.
const ATTEMPTS: u32 = 3;
/// What our queries say that we take over UDP: fits every path (RFC 9715).
pub(crate) const UDP_OCTETS: u16 = 1232;

/// A name and a type.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub(crate) struct Question {
    /// Wire form.
    pub(crate) name: Box<[u8]>,
    pub(crate) rtype: Rtype,
}

impl Question {
    pub(crate) fn new(name: &[u8], rtype: Rtype) -> Question {
        Question {
            name: name.into(),
            rtype,
        }
    }
}

impl fmt::Display for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", name::display(&self.name), self.rtype)
    }
}

/// How to ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct How {
    pub(crate) server: SocketAddr,
    pub(crate) timeout: Duration,
    pub(crate) tcp: bool,
    /// What our OPT says; `None`: no OPT.
    pub(crate) udp_octets: Option<u16>,
    /// DNSSEC signatures are wanted; needs an OPT.
    pub(crate) dnssec: bool,
}

/// What came back.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) rcode: Rcode,
    pub(crate) authoritative: bool,
    /// It is cut off, over TCP too.
    pub(crate) truncated: bool,
    /// An OPT is in it.
    pub(crate) edns: bool,
    /// Octets of the message.
    pub(crate) octets: usize,
    /// Section, TTL and record.
    pub(crate) records: Vec<(Section, u32, Rr)>,
    pub(crate) took: Duration,
}

impl Reply {
    pub(crate) fn section(&self, section: Section) -> impl Iterator<Item = (u32, &Rr)> {
        let records = self.records.iter();
        records
            .filter(move |(found, ..)| *found == section)
            .map(|(_, ttl, rr)| (*ttl, rr))
    }
}

/// Why nothing usable came back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Silence {
    /// Nothing in time, however often it was asked.
    NoAnswer(Duration),
    /// The network says so.
    Network(String),
    /// It is no answer to the question.
    Malformed(&'static str),
}

impl fmt::Display for Silence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Silence::NoAnswer(after) => write!(f, "no answer within {after:?}"),
            Silence::Network(what) => f.write_str(what),
            Silence::Malformed(what) => write!(f, "malformed answer: {what}"),
        }
    }
}

/// A socket of each kind, made when it is first needed.
#[derive(Default)]
pub(crate) struct Asker {
    udp: Option<(SocketAddr, UdpSocket)>,
    tcp: Option<(SocketAddr, TcpStream)>,
    buffer: Vec<u8>,
}

impl Asker {
    /// Asks; a truncated answer over UDP is asked for again over TCP.
    pub(crate) async fn ask(&mut self, how: &How, asked: &Question) -> Result<Reply, Silence> {
        let start = Instant::now();
        let reply = match how.tcp {
            true => self.over_tcp(how, asked).await?,
            false => match self.over_udp(how, asked).await? {
                reply if reply.truncated => self.over_tcp(how, asked).await?,
                reply => reply,
            },
        };
        Ok(Reply {
            took: start.elapsed(),
            ..reply
        })
    }

    /// Asks over UDP and takes what comes, truncated or not.
    pub(crate) async fn over_udp(&mut self, how: &How, asked: &Question) -> Result<Reply, Silence> {
        let mut last = Silence::NoAnswer(how.timeout * ATTEMPTS);
        for _ in 0..ATTEMPTS {
            match timeout(how.timeout, self.once_over_udp(how, asked)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(error)) => {
                    last = silence(&error);
                    self.udp = None;
                }
                // A late answer must not be taken for the next one's: another socket, another port.
                Err(_) => self.udp = None,
            }
        }
        Err(last)
    }

    async fn once_over_udp(&mut self, how: &How, asked: &Question) -> io::Result<Reply> {
        let socket = match self.udp.take() {
            Some((server, socket)) if server == how.server => socket,
            _ => connect_udp(how.server).await?,
        };
        let (_, socket) = self.udp.insert((how.server, socket));
        let id: u16 = rand::random();
        let query = query(id, asked, how);
        socket.send(&query).await?;
        self.buffer.resize(65_535, 0);
        loop {
            let octets = socket.recv(&mut self.buffer).await?;
            let message = self.buffer.get(..octets).unwrap_or_default();
            // What is not for this question is for an earlier one, or somebody's guess.
            if is_answer_to(message, id, asked) {
                return read(message)
                    .map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what));
            }
        }
    }

    async fn over_tcp(&mut self, how: &How, asked: &Question) -> Result<Reply, Silence> {
        // A connection that had been used may have been closed meanwhile.
        let had_one = self.tcp.is_some();
        let mut answer = timeout(how.timeout, self.once_over_tcp(how, asked)).await;
        if had_one && matches!(answer, Ok(Err(_))) {
            self.tcp = None;
            answer = timeout(how.timeout, self.once_over_tcp(how, asked)).await;
        }
        match answer {
            Ok(Ok(reply)) => Ok(reply),
            Ok(Err(error)) => {
                self.tcp = None;
                Err(silence(&error))
            }
            Err(_) => {
                self.tcp = None;
                Err(Silence::NoAnswer(how.timeout))
            }
        }
    }

    async fn once_over_tcp(&mut self, how: &How, asked: &Question) -> io::Result<Reply> {
        let stream = match self.tcp.take() {
            Some((server, stream)) if server == how.server => stream,
            _ => {
                let stream = TcpStream::connect(how.server).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        let (_, stream) = self.tcp.insert((how.server, stream));
        let id: u16 = rand::random();
        let query = query(id, asked, how);
        let mut framed = (query.len() as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(&query);
        stream.write_all(&framed).await?;
        let octets = stream.read_u16().await?;
        self.buffer.resize(usize::from(octets), 0);
        stream.read_exact(&mut self.buffer).await?;
        if !is_answer_to(&self.buffer, id, asked) {
            let what = "it belongs to another question";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        read(&self.buffer).map_err(|what| io::Error::new(io::ErrorKind::InvalidData, what))
    }
}

async fn connect_udp(server: SocketAddr) -> io::Result<UdpSocket> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    Ok(socket)
}

fn silence(error: &io::Error) -> Silence {
    match error.kind() {
        io::ErrorKind::InvalidData => Silence::Malformed("its records cannot be read"),
        io::ErrorKind::ConnectionRefused => Silence::Network("connection refused".into()),
        _ => Silence::Network(error.to_string()),
    }
}

fn query(id: u16, asked: &Question, how: &How) -> Vec<u8> {
    let udp_octets = how.udp_octets;
    let mut query = id.to_be_bytes().to_vec();
    // Recursion is wished for: an alias may lead out of the zone.
    query.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(udp_octets.is_some())]);
    query.extend_from_slice(&asked.name);
    query.extend_from_slice(&asked.rtype.0.to_be_bytes());
    query.extend_from_slice(&Class::IN.0.to_be_bytes());
    if let Some(octets) = udp_octets {
        // RFC 6891 §6.1.2: the root, OPT, what we take, version 0, flags (RFC 3225 §3: the first is DO), no options.
        query.extend_from_slice(&[0, 0, 41]);
        query.extend_from_slice(&octets.to_be_bytes());
        query.extend_from_slice(&[0, 0, u8::from(how.dnssec) << 7, 0, 0, 0]);
    }
    query
}

fn is_answer_to(message: &[u8], id: u16, asked: &Question) -> bool {
    let Ok(view) = question(message) else {
        // An error may come without its question.
        return message.get(..2) == Some(&id.to_be_bytes()) && message.len() >= HEADER_OCTETS;
    };
    let name = message
        .get(HEADER_OCTETS..view.name_end)
        .unwrap_or_default();
    message.get(..2) == Some(&id.to_be_bytes())
        && message.get(2).is_some_and(|flags| flags & 0x80 != 0)
        && view.qtype == asked.rtype
        && name::eq_ignore_case(name, &asked.name)
}

fn read(message: &[u8]) -> Result<Reply, &'static str> {
    let flags = message.get(2..4).and_then(<[u8]>::first_chunk::<2>);
    let [high, low] = *flags.ok_or("it ends early")?;
    let mut reply = Reply {
        rcode: Rcode(u16::from(low & 0x0f)),
        authoritative: high & 0x04 != 0,
        truncated: high & 0x02 != 0,
        edns: false,
        octets: message.len(),
        records: Vec::new(),
        took: Duration::ZERO,
    };
    for view in records(message).map_err(|_| "its records cannot be read")? {
        let view = view.map_err(|_| "its records cannot be read")?;
        if view.rtype == Rtype::OPT {
            reply.edns = true;
            reply.rcode.0 |= ((view.ttl >> 24) as u16) << 4;
            continue;
        }
        let rr = Rr::read(message, &view).ok_or("its records cannot be read")?;
        reply.records.push((view.section, view.ttl, rr));
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_query_is_whole() {
        let asked = Question::new(b"\x01a\x00", Rtype::AAAA);
        let how = How {
            server: "127.0.0.1:53".parse().expect("an address"),
            timeout: Duration::from_secs(1),
            tcp: false,
            udp_octets: Some(UDP_OCTETS),
            dnssec: true,
        };
        let query = query(7, &asked, &how);
        let view = question(&query).expect("it has a question");
        assert_eq!(view.qtype, Rtype::AAAA);
        assert_eq!(records(&query).expect("it has").count(), 1);
    }

    proptest! {
        #[test]
        fn reading_never_panics(message in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&message).ok();
            is_answer_to(&message, 1, &Question::new(b"\0", Rtype::A));
        }
    }
}
