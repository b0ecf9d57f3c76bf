//! Lines for operators: `[INFO] Reloading`, to standard output, one per event, as CoreDNS writes them; or as SkyDNS did.

use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, reload};

/// The variable that says more exactly what is logged, as `tracing` has it: `skein_plugins=debug,info`.
const VARIABLE: &str = "SKEINDNS_LOG";
const DEFAULT: &str = "info,hyper=warn,hyper_util=warn,reqwest=warn,rustls=warn";
const DEBUG: &str = "debug,hyper=info,hyper_util=info,reqwest=info,rustls=info";

static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// How lines look, and where they go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Style {
    /// `[INFO] Reloading`, to standard output.
    CoreDns,
    /// `2016/07/13 21:02:14 skydns: Reloading`, local time, to standard error.
    SkyDns,
}

/// Starts logging.
pub(crate) fn start(style: Style) {
    let (filter, handle) = reload::Layer::new(filter(DEFAULT));
    let lines = tracing_subscriber::fmt::layer()
        .event_format(Lines(style))
        .with_writer(Out(style))
        .log_internal_errors(false);
    // A program that embeds us may have its own subscriber, which then gets the events.
    if Registry::default()
        .with(filter)
        .with(lines)
        .try_init()
        .is_ok()
    {
        FILTER.set(handle).ok();
    }
}

/// What `debug` in the Dnsfile says.
pub(crate) fn set_debug(debug: bool) {
    if let Some(handle) = FILTER.get() {
        handle
            .reload(filter(if debug { DEBUG } else { DEFAULT }))
            .ok();
    }
}

fn filter(default: &str) -> EnvFilter {
    std::env::var(VARIABLE)
        .ok()
        .and_then(|text| EnvFilter::try_new(text).ok())
        .unwrap_or_else(|| EnvFilter::new(default))
}

struct Lines(Style);

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut text = String::new();
        context.format_fields(Writer::new(&mut text), event)?;
        // Whatever a message quotes, it stays one line.
        let text = text.replace(['\n', '\r'], " ");
        match self.0 {
            Style::CoreDns => writeln!(writer, "[{}] {text}", level(*event.metadata().level())),
            Style::SkyDns => writeln!(writer, "{} skydns: {text}", now()),
        }
    }
}

/// The local time as Go's log prints it.
pub(crate) fn now() -> String {
    let [year, month, day, hour, minute, second] = crate::system::local_time();
    format!("{year:04}/{month:02}/{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// CoreDNS's names.
fn level(level: Level) -> &'static str {
    match level {
        Level::ERROR => "ERROR",
        Level::WARN => "WARNING",
        Level::INFO => "INFO",
        Level::DEBUG | Level::TRACE => "DEBUG",
    }
}

/// Standard output or error; if nobody reads it any more, serving goes on.
#[derive(Clone, Copy)]
struct Out(Style);

impl<'w> MakeWriter<'w> for Out {
    type Writer = Out;

    fn make_writer(&'w self) -> Out {
        *self
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0 {
            Style::CoreDns => print(bytes),
            // An error has nobody to tell.
            Style::SkyDns => io::stderr().lock().write_all(bytes).unwrap_or(()),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to standard output at once; an error has nobody to tell.
pub(crate) fn print(bytes: &[u8]) {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).ok();
    stdout.flush().ok();
}

/// Reports panics in one line each, and no more than one a second: whoever can cause one can cause many.
pub(crate) fn report_panics() {
    static LAST: AtomicU64 = AtomicU64::new(u64::MAX);
    let start = std::time::Instant::now();
    std::panic::set_hook(Box::new(move |info| {
        let second = start.elapsed().as_secs();
        if LAST.swap(second, Relaxed) == second {
            return;
        }
        let place = info.location().map_or_else(String::new, |place| {
            format!(" at {}:{}", place.file(), place.line())
        });
        let what = info.payload_as_str().unwrap_or("no message");
        tracing::error!("Recovered from panic in server{place}: {what}");
    }));
}
