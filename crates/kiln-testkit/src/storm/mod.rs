//! Storms: the real core in a world in which everything goes wrong that can, decided by a seed.
//!
//! Every call of the core may fail before or after it has had its effect; the control plane may die before and after
//! each; the disk under its operation log tears what it writes, fills up and cannot be read; news of the engine is
//! late, repeated and out of order; instances die, are sick, or never start; the keeper and the edge die; ports are
//! taken by other programs; and all the time people ask for releases, good and bad. A judge looks at what is really
//! there after every effect. Then the weather clears, and everything must come to rest. The same seed is the same storm, everywhere.

mod chance;
mod disk;
mod ground;
mod hearing;
mod judge;
mod life;
mod losses;
mod luck;
mod rest;
mod workload;
mod world;

pub use chance::Chance;
pub use judge::Figures;

use life::Storm;

/// Unwinds out of the core: the control plane is dead.
struct Crash;

/// How often what goes wrong: once in so many times, never if 0.
#[derive(Debug, Clone, Copy)]
struct Weather {
    /// The control plane dies at a call.
    crashes: u64,
    /// A call fails.
    failures: u64,
    /// An instance does not start.
    starts: u64,
    /// Something happens to an instance, to the keeper or to the edge, of a hundred steps.
    accidents: u64,
}

impl Weather {
    fn of(chance: &mut Chance) -> Self {
        let mut one_of = |odds: [u64; 4]| *chance.pick(&odds).expect("four");
        Self {
            crashes: one_of([0, 400, 100, 25]),
            failures: one_of([0, 300, 60, 15]),
            starts: one_of([0, 0, 20, 5]),
            accidents: one_of([0, 5, 15, 30]),
        }
    }

    fn clear(&mut self) {
        *self = Self { crashes: 0, failures: 0, starts: 0, accidents: 0 };
    }
}

/// A world that lies, to see whether the judge notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sabotage {
    /// The disk loses what it said it has.
    ForgetfulDisk,
    /// The edge says that a table is in force, and it is not.
    DeafEdge,
    /// The edge says that nothing is in flight.
    HastyDrain,
    /// Everybody is said to be healthy.
    FlatteringHealth,
    /// News of the engine never arrives.
    MuteEngine,
    /// The edge takes tables without their canaries.
    ShyEdge,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::ForgetfulDisk,
        Self::DeafEdge,
        Self::HastyDrain,
        Self::FlatteringHealth,
        Self::MuteEngine,
        Self::ShyEdge,
    ];
}

/// A promise that was broken.
#[derive(Debug, Clone)]
pub struct Breach {
    /// The storm's seed.
    pub seed: u64,
    /// What was wrong.
    pub what: String,
    /// What had happened, if it was asked for.
    pub trace: Vec<String>,
}

/// Lives through the storm of a seed.
///
/// # Errors
/// The first promise that was broken.
pub fn weather(seed: u64, sabotage: Option<Sabotage>, trace: bool) -> Result<Figures, Breach> {
    Storm::new(seed, sabotage, trace).live_through()
}
