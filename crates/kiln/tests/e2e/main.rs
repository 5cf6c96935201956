//! End to end, as root, on the real engine: the real mirror, the real packages, real requests.
//!
//! One bake is shared: it is made once, and every test host starts from a copy of its state directory.

mod access_log;
mod acme;
mod boundaries;
mod boundaries_beyond;
mod boundaries_commands;
mod boundaries_down;
mod canary;
mod cancel;
mod certificates;
mod clock;
mod commit;
mod contents;
mod damaged_image;
mod damaged_log;
mod damaged_release;
mod deploys;
mod disks;
mod edges;
mod failing_disk;
mod failures;
mod followers;
mod hands;
mod health;
mod hooks;
mod host;
mod host_limits;
mod luck;
mod oci;
mod pause;
mod portable;
mod project;
mod releases;
mod rollback;
mod sealed;
mod secrets;
mod shop;
mod standing_still;
mod trace;
mod up;
mod zero_drop;
