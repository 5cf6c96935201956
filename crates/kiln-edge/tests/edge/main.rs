//! The edge from outside: real sockets on loopback, instances that misbehave on purpose, and clients that do too.

#![expect(unreachable_pub, reason = "a test binary has no outside to reach")]

mod access_log;
mod bad_upstreams;
mod bounds;
mod broker;
mod canary;
mod circuit;
mod clients;
mod control;
mod declined;
mod drain;
mod early_answers;
mod express;
mod first_bytes;
mod forwarding;
mod frames;
mod h2;
mod h2_abuse;
mod h2_end;
mod h2_ways;
mod harness;
mod inside;
mod instance;
mod observed;
mod ports;
mod process;
mod routing;
mod smuggling;
mod streams;
mod succession;
mod tls;
mod trailers;
mod watch;
mod websockets;
mod wire;
mod zero_drop;
