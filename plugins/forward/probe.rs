//! Probes of an upstream that failed: asked until any reply comes.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;

#[cfg(feature = "testing")]
use crate::kit::query::Transport;
use crate::kit::wire::Rtype;

use super::message;
use super::tcp;
use super::udp;
use super::upstream::{Probe, Target, Upstream};

/// How long a probe waits for its reply, as in CoreDNS.
const REPLY_MAX: Duration = Duration::from_secs(1);
/// The least time between two probes: an interval of 0 must not make a flood.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Starts to probe, unless somebody does already. The task ends with the upstream, or when it is back.
pub(super) fn start(upstream: &Arc<Upstream>, probe: &Probe, source: Option<IpAddr>) {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return;
    };
    let Some(probing) = upstream.health.begin_probing() else {
        return;
    };
    let upstream = Arc::downgrade(upstream);
    let probe = probe.clone();
    runtime.spawn(async move {
        loop {
            let Some(asked) = upstream.upgrade() else {
                return;
            };
            if answers(&asked.target, &probe, source).await {
                probing.health().replied();
                return;
            }
            probing.health().failed();
            asked.metrics.probe_failed();
            drop(asked);
            tokio::time::sleep(probe.interval.max(INTERVAL_MIN)).await;
        }
    });
}

/// Whether any reply comes, even one that cannot be read.
async fn answers(target: &Target, probe: &Probe, source: Option<IpAddr>) -> bool {
    let mut packet = Vec::new();
    let id = rand::random();
    message::write_own_query(
        &mut packet,
        id,
        probe.recursion_desired,
        &probe.domain,
        Rtype::NS,
    );
    let asked = async {
        match target {
            Target::Network(address) if probe.tcp => {
                tcp::probe(*address, source, &packet).await.is_ok()
            }
            Target::Network(address) => over_udp(*address, source, &packet).await.is_ok(),
            #[cfg(feature = "testing")]
            Target::Scripted(script, word) => {
                let transport = if probe.tcp {
                    Transport::Tcp
                } else {
                    Transport::Udp
                };
                match script.exchange_with(word, &packet, transport).await {
                    Some(_) => true,
                    None => std::future::pending().await,
                }
            }
        }
    };
    tokio::time::timeout(REPLY_MAX, asked)
        .await
        .unwrap_or(false)
}

async fn over_udp(to: SocketAddr, source: Option<IpAddr>, packet: &[u8]) -> std::io::Result<()> {
    let socket = udp::open(to, source).and_then(UdpSocket::from_std)?;
    socket.send(packet).await?;
    let mut reply = [0; 512];
    loop {
        let length = socket.recv(&mut reply).await?;
        let same_id = length >= 12 && reply[..2] == packet[..2];
        if same_id && reply[2] & 0x80 != 0 {
            return Ok(());
        }
    }
}
