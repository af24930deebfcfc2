//! [`Connection`]: one client at a time, on the first endpoint that works.

use std::future::Future;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, KvClient, WatchClient};

use super::EtcdOptions;
use crate::datastore::DatastoreError;

/// The largest answer that is taken, in bytes: a page of leases, should somebody fill their values up.
const MAX_ANSWER: usize = 256 << 20;

/// gRPC's codes (google.rpc.Code) for what another try will not change.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const PERMISSION_DENIED: i32 = 7;
    pub(super) const FAILED_PRECONDITION: i32 = 9;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAUTHENTICATED: i32 = 16;
    /// Also etcd's answer to a revision that is compacted away.
    pub(super) const OUT_OF_RANGE: i32 = 11;
}

/// Connects to one endpoint after another and stays with the one that answers.
///
/// Not left to the client's balancing: it spreads calls over all endpoints, dead ones included.
#[derive(Debug)]
pub(super) struct Connection {
    endpoints: Vec<Endpoint>,
    timeout: Duration,
    /// The endpoint in use and its client, once connected.
    current: Mutex<(usize, Option<ClientHandle>)>,
}

struct Endpoint {
    url: String,
    /// Holds the password, so it is never printed.
    options: ConnectOptions,
}

impl std::fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.url)
    }
}

/// A client, which has no `Debug` of its own.
#[derive(Clone)]
struct ClientHandle(Client);

impl std::fmt::Debug for ClientHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("connected")
    }
}

/// Why one try at one endpoint failed.
enum Failure {
    TimedOut(Duration),
    Etcd(Error),
}

impl Connection {
    pub(super) fn new(options: &EtcdOptions) -> Result<Self, DatastoreError> {
        if options.endpoints.is_empty() {
            return Err(options.refused("no endpoint given"));
        }
        let plain = options.connect_options()?;
        let endpoint = |url: &String| {
            check(url).map_err(|reason| options.refused(&format!("endpoint {url:?}: {reason}")))?;
            let options = match url.starts_with("https://") {
                true => plain.clone().with_tls(options.tls()?),
                false => plain.clone(),
            };
            Ok(Endpoint { url: url.clone(), options })
        };
        let endpoints = options.endpoints.iter().map(endpoint).collect::<Result<_, DatastoreError>>()?;
        Ok(Self { endpoints, timeout: options.timeout, current: Mutex::default() })
    }

    /// Makes one call: at the endpoint in use, then at each other one until one answers.
    pub(super) async fn call<T, F>(&self, operation: &str, call: impl Fn(Client) -> F) -> Result<T, DatastoreError>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut reasons = Vec::new();
        for _ in &self.endpoints {
            let (index, known) = self.current();
            let failure = match self.attempt(index, known, &call).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let url = &self.endpoints[index].url;
            if let Some(reason) = failure.lasting() {
                return Err(DatastoreError::Refused { operation: operation.to_owned(), store: url.clone(), reason });
            }
            tracing::debug!(%url, operation, reason = %failure, "etcd endpoint failed, trying the next");
            self.leave(index);
            reasons.push(format!("{url}: {failure}"));
        }
        Err(DatastoreError::Unavailable {
            operation: operation.to_owned(),
            store: "etcd".to_owned(),
            reason: reasons.join("; "),
        })
    }

    async fn attempt<T, F>(&self, index: usize, known: Option<Client>, call: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let all = async {
            let client = match known {
                Some(client) => client,
                None => self.connect(index).await?,
            };
            call(client).await
        };
        match tokio::time::timeout(self.timeout, all).await {
            Ok(answer) => answer.map_err(Failure::Etcd),
            Err(_) => Err(Failure::TimedOut(self.timeout)),
        }
    }

    async fn connect(&self, index: usize) -> Result<Client, Error> {
        let endpoint = &self.endpoints[index];
        let client = Client::connect([&endpoint.url], Some(endpoint.options.clone())).await?;
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 == index {
            current.1 = Some(ClientHandle(client.clone()));
        }
        Ok(client)
    }

    fn current(&self) -> (usize, Option<Client>) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        (current.0, current.1.as_ref().map(|client| client.0.clone()))
    }

    /// Goes on to the endpoint after `index`, unless another call has done so already.
    fn leave(&self, index: usize) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 == index {
            *current = ((index + 1) % self.endpoints.len(), None);
        }
    }
}

/// Whether a client could be made for `url`, as far as that shows without making one.
fn check(url: &str) -> Result<(), &'static str> {
    let authority = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let authority = authority.ok_or("must begin with http:// or https://")?.trim_end_matches('/');
    if authority.is_empty() || authority.contains(|c: char| c.is_whitespace() || c == '/') {
        return Err("must be a host and a port, like http://192.0.2.1:2379 or https://[2001:db8::1]:2379");
    }
    Ok(())
}

/// The client for listings, whose answers may be large.
pub(super) fn roomy(client: &Client) -> KvClient {
    client.kv_client().max_decoding_message_size(MAX_ANSWER)
}

/// The client for watches, whose answers may be large.
pub(super) fn roomy_watch(client: &Client) -> WatchClient {
    client.watch_client().max_decoding_message_size(MAX_ANSWER)
}

impl Failure {
    /// The reason, if the next endpoint or the next hour will not change it.
    fn lasting(&self) -> Option<String> {
        let Self::Etcd(error) = self else { return None };
        let lasting = match error {
            Error::InvalidArgs(_) | Error::InvalidUri(_) | Error::InvalidMetadataValue(_) => true,
            Error::GRpcStatus(status) => matches!(
                status.code() as i32,
                code::INVALID_ARGUMENT
                    | code::PERMISSION_DENIED
                    | code::FAILED_PRECONDITION
                    | code::UNIMPLEMENTED
                    | code::UNAUTHENTICATED
                    | code::OUT_OF_RANGE
            ),
            _ => false,
        };
        lasting.then(|| self.to_string())
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TimedOut(after) => write!(f, "no answer within {} s", after.as_secs_f32()),
            Self::Etcd(error) => f.write_str(&one_line(error)),
        }
    }
}

/// The message of etcd's answer, or of the innermost cause, where transports hide the reason.
pub(super) fn one_line(error: &Error) -> String {
    let text = match error {
        Error::GRpcStatus(status) => match innermost(status) {
            Some(cause) => cause.to_string(),
            None => status.message().to_owned(),
        },
        Error::TransportError(transport) => {
            innermost(transport).map_or_else(|| transport.to_string(), ToString::to_string)
        }
        other => other.to_string(),
    };
    crate::json::shortened(&text)
}

fn innermost(error: &dyn std::error::Error) -> Option<&dyn std::error::Error> {
    std::iter::successors(error.source(), |cause| cause.source()).last()
}
