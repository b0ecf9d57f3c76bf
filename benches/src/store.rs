//! Filling an etcd, and following what a change costs.

use std::io;
use std::time::{Duration, Instant};

use skein_plugins::etcd::{Client, Config, Operation};

/// Operations in one transaction; etcd's own limit.
const OPERATIONS: usize = 128;

/// Puts a record for each name: `h0.example.org` and so on.
pub(crate) fn fill(url: &str, names: usize) -> io::Result<()> {
    let client = client(url)?;
    let numbers: Vec<usize> = (0..names).collect();
    runtime()?.block_on(async {
        for part in numbers.chunks(OPERATIONS) {
            let puts: Vec<Operation> = part.iter().map(|&i| put(i, 0)).collect();
            client
                .txn(&[], &puts, &[])
                .await
                .map_err(|error| io::Error::other(error.to_string()))?;
        }
        Ok(())
    })
}

/// Changes one name's address `times` times, each time asking `answers` (which gets the address's last octet) until it says that the change is
/// there; how long each took from before the put.
pub(crate) fn follow(
    url: &str,
    times: usize,
    mut answers: impl FnMut(u8) -> io::Result<bool>,
) -> io::Result<Vec<Duration>> {
    let client = client(url)?;
    // One for all: a connection lives on the runtime that made it.
    let runtime = runtime()?;
    let mut took = Vec::new();
    for n in 0..times {
        let octet = (n % 250 + 1) as u8;
        let (start, end) = (Instant::now(), Instant::now() + Duration::from_secs(10));
        runtime.block_on(async {
            let change = put(0, octet);
            let done = client.txn(&[], &[change], &[]).await;
            done.map(drop)
                .map_err(|error| io::Error::other(error.to_string()))
        })?;
        while !answers(octet)? {
            if Instant::now() > end {
                return Err(io::Error::other("a change is not answered after 10 s"));
            }
        }
        took.push(start.elapsed());
    }
    Ok(took)
}

fn put(i: usize, octet: u8) -> Operation {
    let key = format!("/skydns/org/example/h{i}");
    let address = match octet {
        0 => format!("10.{}.{}.{}", i >> 16 & 255, i >> 8 & 255, i & 255),
        octet => format!("192.0.2.{octet}"),
    };
    let value = format!(r#"{{"host":"{address}","ttl":3600}}"#);
    Operation::Put(key.into_bytes(), value.into_bytes(), 0)
}

fn client(url: &str) -> io::Result<Client> {
    let config = Config {
        endpoints: vec![url.to_owned()],
        ..Config::default()
    };
    Client::new(&config).map_err(io::Error::other)
}

fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
