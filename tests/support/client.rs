//! A client of loopback.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RData, RecordType};

use super::process::PATIENCE;

/// A query with RD.
pub(crate) fn query(name: &str, rtype: RecordType) -> Message {
    let mut query = Message::new(4242, MessageType::Query, OpCode::Query);
    query.metadata.recursion_desired = true;
    query.add_query(Query::query(Name::from_ascii(name).expect("a name"), rtype));
    query
}

/// The same for responses of up to 4,096 octets.
pub(crate) fn with_edns(mut query: Message) -> Message {
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    query.edns = Some(edns);
    query
}

/// Asks over UDP.
pub(crate) fn ask(port: u16, query: &Message) -> Message {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    socket.set_read_timeout(Some(PATIENCE)).expect("not zero");
    socket
        .connect((Ipv4Addr::LOCALHOST, port))
        .expect("loopback");
    let bytes = query.to_vec().expect("a small query");
    socket.send(&bytes).expect("it listens");
    let mut buffer = [0; 4096];
    let length = socket.recv(&mut buffer).expect("an answer");
    Message::from_vec(&buffer[..length]).expect("a message")
}

/// Asks over TCP.
pub(crate) fn ask_tcp(port: u16, query: &Message) -> Message {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    send_frame(&mut stream, &query.to_vec().expect("a small query"));
    Message::from_vec(&read_frame(&mut stream).expect("an answer")).expect("a message")
}

/// A message and its length before it.
pub(crate) fn send_frame(stream: &mut TcpStream, message: &[u8]) {
    let mut frame = (message.len() as u16).to_be_bytes().to_vec();
    frame.extend_from_slice(message);
    stream.write_all(&frame).expect("it reads");
}

/// The next message; none if the connection ends.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 2];
    stream.read_exact(&mut length).ok()?;
    let mut message = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut message).ok()?;
    Some(message)
}

/// The addresses of A records.
pub(crate) fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let records = message.answers.iter();
    let addresses = records.filter_map(|record| match &record.data {
        RData::A(address) => Some(address.0),
        _ => None,
    });
    addresses.collect()
}

/// A page over HTTP/1.1, head and body.
pub(crate) fn http(port: u16, path: &str) -> String {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).expect("it listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("not zero");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )
    .expect("it reads");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("it answers");
    text
}
