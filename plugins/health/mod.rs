//! health: an HTTP endpoint that says that the process lives, and the lameduck time before it stops.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kit::clock;
use crate::kit::errors::{SetupError, SetupErrors};
use crate::kit::metrics::{Counter, Histogram, SLIM_TIME_BUCKETS};
use crate::kit::options::{self, Arg, Checked, Kind, Opt};
use crate::kit::plugin::{Plugin, Repeat};
use crate::kit::setup::{HttpAnswer, ServerSetup};

/// The plugin's row in the table.
pub(crate) const PLUGIN: Plugin = Plugin {
    name: "health",
    aliases: &[],
    summary: "answers /health with 200 while the process lives, and waits before it stops",
    arguments: &[Arg::optional("ADDRESS", Kind::Listen)],
    options: &[Opt::new(
        "lameduck",
        &[Arg::one(
            "DURATION",
            Kind::Duration {
                min: Duration::ZERO,
                max: Duration::from_secs(24 * 3600),
            },
        )],
        "0s",
        "goes on answering this long after SIGTERM, so that clients have time to turn away",
    )],
    free_block: false,
    repeat: Repeat::Many,
    setup,
};

const ADDRESS: &str = ":8080";
/// How often the endpoint is asked by the process itself.
const EVERY: Duration = Duration::from_secs(1);
/// How long that may take.
const TIMEOUT: Duration = Duration::from_secs(3);

fn setup(directives: &[Checked], server: &mut ServerSetup<'_>) -> Result<(), SetupErrors> {
    for directive in directives {
        let (text, span) = match directive.arg("ADDRESS") {
            Some(address) => (address.text().to_owned(), address.span()),
            None => (ADDRESS.to_owned(), directive.span()),
        };
        let address = options::parse_listen(&text).map_err(|what| SetupError::at(span, what))?;
        server.http(
            span,
            address,
            "/health",
            Arc::new(|| HttpAnswer {
                status: 200,
                content_type: "text/plain; charset=utf-8",
                body: "OK".into(),
            }),
        );
        if let Some(duration) = directive
            .option("lameduck")
            .and_then(|line| line.arg("DURATION"))
        {
            server.lameduck(duration.duration());
        }
        let metrics = server.metrics();
        let probe = Probe {
            address,
            duration: metrics.histogram(
                "coredns_health_request_duration_seconds",
                "Histogram of the time (in seconds) each request took.",
                &SLIM_TIME_BUCKETS,
                &[],
            ),
            failures: metrics.counter(
                "coredns_health_request_failures_total",
                "The number of times the health check failed.",
                &[],
            ),
        };
        // A port that the kernel chooses is not known here, so it is not asked either.
        if address.port() != 0 {
            server.background("health: asks itself", probe.run());
        }
    }
    Ok(())
}

/// The process asking its own endpoint: a hung runtime shows here before clients tell.
struct Probe {
    address: SocketAddr,
    duration: Histogram,
    failures: Counter,
}

impl Probe {
    async fn run(self) {
        loop {
            tokio::time::sleep(EVERY).await;
            let start = clock::now();
            let result = tokio::time::timeout(TIMEOUT, self.ask()).await;
            let took = clock::now().saturating_duration_since(start);
            self.duration.observe(took.as_secs_f64());
            match result {
                Ok(Ok(())) if took <= EVERY => {}
                Ok(Ok(())) => tracing::warn!(
                    "plugin/health: Local health request to \"http://{}/health\" took more than 1s: {took:?}",
                    self.address
                ),
                Ok(Err(error)) => self.failed(&error.to_string()),
                Err(_) => self.failed("no answer within 3s"),
            }
        }
    }

    fn failed(&self, what: &str) {
        self.failures.inc();
        tracing::warn!(
            "plugin/health: Local health request to \"http://{}/health\" failed: {what}",
            self.address
        );
    }

    async fn ask(&self) -> std::io::Result<()> {
        let ip = match self.address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
            ip => ip,
        };
        let mut stream = match (
            TcpStream::connect((ip, self.address.port())).await,
            self.address.ip(),
        ) {
            // Where IPv6 is off, the unspecified address is an IPv4 one.
            (Err(_), IpAddr::V6(any)) if any.is_unspecified() => {
                TcpStream::connect((Ipv4Addr::LOCALHOST, self.address.port())).await?
            }
            (connected, _) => connected?,
        };
        stream
            .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .await?;
        let mut head = [0; 12];
        stream.read_exact(&mut head).await?;
        match head.ends_with(b"200") {
            true => Ok(()),
            false => Err(std::io::Error::other("status is not 200")),
        }
    }
}
