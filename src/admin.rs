//! HTTP for what plugins offer to operators: /metrics, /health, /ready.
//!
//! Routes of one address share a socket. A reload exchanges the routes behind it; the socket closes only when nothing is left on it.

use std::cell::Cell;
use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use skein_plugins::kit::setup::HttpRoute;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

use crate::limits::{ACCEPT_PAUSE, HTTP_CONNECTIONS_MAX, HTTP_TIMEOUT};

/// The routes behind a socket, exchanged as a whole.
type Routes = Arc<Mutex<Vec<HttpRoute>>>;

/// Every HTTP endpoint of the process, by the address that the Dnsfile has.
#[derive(Default)]
pub(crate) struct Admin {
    endpoints: HashMap<SocketAddr, Endpoint>,
    // Connections, all endpoints together.
    open: Rc<Cell<usize>>,
}

struct Endpoint {
    local: SocketAddr,
    routes: Routes,
    task: AbortHandle,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Admin {
    /// Where this address is served already.
    pub(crate) fn local(&self, address: SocketAddr) -> Option<SocketAddr> {
        self.endpoints.get(&address).map(|endpoint| endpoint.local)
    }

    /// Serves these routes from now on and no others. `fresh` are the sockets of addresses that were not served yet; an address without a
    /// socket is left out, which the caller has reported.
    pub(crate) fn exchange(
        &mut self,
        routes: &[HttpRoute],
        fresh: Vec<(SocketAddr, StdListener)>,
    ) -> std::io::Result<()> {
        let of = |address: SocketAddr| -> Vec<HttpRoute> {
            let wanted = routes.iter().filter(|route| route.address == address);
            wanted.cloned().collect()
        };
        for (address, socket) in fresh {
            let listener = TcpListener::from_std(socket)?;
            let local = listener.local_addr()?;
            let routes = Arc::new(Mutex::new(Vec::new()));
            let serving = serve(listener, Arc::clone(&routes), Rc::clone(&self.open));
            let task = tokio::task::spawn_local(serving).abort_handle();
            let endpoint = Endpoint {
                local,
                routes,
                task,
            };
            self.endpoints.insert(address, endpoint);
        }
        self.endpoints
            .retain(|address, _| routes.iter().any(|route| route.address == *address));
        for (address, endpoint) in &self.endpoints {
            let mut current = endpoint
                .routes
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *current = of(*address);
        }
        Ok(())
    }
}

/// Accepts connections as long as the endpoint stands.
async fn serve(listener: TcpListener, routes: Routes, open: Rc<Cell<usize>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) if open.get() < HTTP_CONNECTIONS_MAX => {
                let place = Place::take(&open);
                tokio::task::spawn_local(converse(stream, Arc::clone(&routes), place));
            }
            // Too many already: the newest goes, since those who are here are being answered.
            Ok(_) => {}
            Err(error) => {
                tracing::debug!("http: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One of the connections that are counted.
struct Place(Rc<Cell<usize>>);

impl Place {
    fn take(open: &Rc<Cell<usize>>) -> Place {
        open.set(open.get() + 1);
        Place(Rc::clone(open))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn converse(stream: TcpStream, routes: Routes, _place: Place) {
    let service = service_fn(move |request: Request<Incoming>| {
        let response = answer(&routes, &request);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HTTP_TIMEOUT)
        .keep_alive(true)
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    // A scraper that does not take its answer is cut off, as is one that stays without asking: probes come back.
    if let Ok(Err(error)) = tokio::time::timeout(HTTP_TIMEOUT * 6, connection).await {
        tracing::debug!("http: {error}");
    }
}

fn answer(routes: &Mutex<Vec<HttpRoute>>, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let handler = {
        let routes = routes.lock().unwrap_or_else(PoisonError::into_inner);
        let found = routes.iter().find(|route| route.path == path);
        found.map(|route| Arc::clone(&route.handler))
    };
    let Some(handler) = handler else {
        return plain(StatusCode::NOT_FOUND, "404 page not found\n");
    };
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "405 only GET and HEAD\n");
        response
            .headers_mut()
            .insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let answer = handler();
    Response::builder()
        .status(answer.status)
        .header(CONTENT_TYPE, answer.content_type)
        .body(Full::from(answer.body))
        .unwrap_or_else(|_| plain(StatusCode::INTERNAL_SERVER_ERROR, "500\n"))
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; charset=utf-8"),
    );
    response
}
