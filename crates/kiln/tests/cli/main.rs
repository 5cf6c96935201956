//! The command line as people and programs meet it: arguments in, stdout, stderr and exit code out. Hermetic: a
//! directory, a registry of hosts and, where one is needed, a scripted host behind a real socket of its own.

mod answers;
mod commits;
mod deploys;
mod harness;
mod hosts;
mod images;
mod releases;
mod specs;
mod usage;
