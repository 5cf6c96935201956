//! What is not baked, although its package would make it: it belongs to one machine, or is data. Whoever bakes is told,
//! with what to do instead.

use kiln_model::LockedPackage;

/// The beginning of a package's name, and what is to be said of it.
const LEFT_OUT: [(&str, &str); 7] = [
    (
        "bind9",
        "the key of rndc is not baked: make one at the start of an instance (`rndc-confgen -a -c FILE`) or give one as a secret",
    ),
    (
        "openssh-server",
        "SSH host keys are not baked: make them at the start of an instance (`ssh-keygen -A -f DIR`, DIR volatile) or give them as secrets",
    ),
    (
        "ssl-cert",
        "the snakeoil certificate is not baked: make one at the start of an instance, or give one as a secret",
    ),
    (
        "postgresql-common",
        "no PostgreSQL cluster is baked: data lives in a store, or is made by `initdb` in a volatile directory",
    ),
    (
        "mariadb-server",
        "no MariaDB database is baked: data lives in a store, or is made by `mariadb-install-db` in a volatile directory",
    ),
    (
        "mysql-server",
        "no MySQL database is baked: data lives in a store, or is made by `mysqld --initialize` in a volatile directory",
    ),
    (
        "rabbitmq-server",
        "no Erlang cookie is baked: give one as a secret, or let each instance make its own in a volatile directory",
    ),
];

/// What is to be said of these packages.
pub(crate) fn left_out(packages: &[LockedPackage]) -> impl Iterator<Item = &'static str> {
    let has = |start: &str| packages.iter().any(|p| p.name == start);
    LEFT_OUT.iter().filter(move |(name, _)| has(name)).map(|(_, said)| *said)
}
