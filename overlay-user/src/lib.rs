pub mod allocate;
pub mod backoff;
pub mod datastore;
mod json;
pub mod lease;
pub mod mac;
pub mod network;
pub mod routes;
pub mod watch;
