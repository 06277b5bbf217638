//! End-to-end tests on the running kernel: one program, so that the test bed is linked once.

mod bad_config;
mod bad_input_http;
mod bad_input_tls;
mod bad_input_tokens;
mod bed;
mod capacity;
mod cut;
mod descriptors;
mod grpc;
mod http2;
mod ipv6;
mod maps;
mod nginx;
mod postgres;
mod privileges;
mod proxy_protocol;
mod renew;
mod restart;
mod revoke;
mod session_endpoints;
mod state_dir;
mod stop;
mod tcp;
mod upstream_errors;
