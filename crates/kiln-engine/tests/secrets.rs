//! Secrets inside instances: who can read them, and where else they are.

mod common;

use std::fs;

use common::{Bench, status_of};
use kiln_engine::Engine;
use kiln_model::{Exit, InstanceOrder, SecretOrder, SecretValue};

fn with_secrets(mut order: InstanceOrder, secrets: &[(&str, &[u8], Option<&str>)]) -> InstanceOrder {
    let secret = |(name, value, env): &(&str, &[u8], Option<&str>)| SecretOrder {
        name: name.parse().unwrap(),
        value: SecretValue::new(value.to_vec()).unwrap(),
        env: env.map(str::to_owned),
    };
    order.secrets = secrets.iter().map(secret).collect();
    order
}

#[test]
fn secrets_are_files_that_only_the_user_reads_and_nobody_writes() {
    let bench = Bench::new();
    let script = "cd /run/secrets; stat -c '%a %u:%g %n' . *; cat API_KEY; echo; cat DB; echo
        (echo x > API_KEY) 2>/dev/null || echo closed
        (echo x > new) 2>/dev/null || echo closed
        chmod 644 DB 2>/dev/null || echo closed
        grep -c ' /run/secrets tmpfs ro,nosuid,nodev,noexec' /proc/self/mounts
        grep ' /run/secrets ' /proc/self/mountinfo | grep -c noswap
        echo \"DB_PASSWORD=$DB_PASSWORD API_KEY=$API_KEY\"";
    let mut order = bench.image.shell("reads", script);
    order.volatile.push(kiln_model::Volatile::new("/run", kiln_model::ByteSize(1 << 20)));
    let large = vec![b'x'; SecretValue::MOST];
    let secrets: [(&str, &[u8], Option<&str>); 3] =
        [("API_KEY", b"sesame", None), ("DB", b"open", Some("DB_PASSWORD")), ("LARGE", &large, None)];
    let (exit, output) = bench.to_end(&with_secrets(order, &secrets));
    assert_eq!(exit, Exit::Code { code: 0 }, "{output}");
    let expected = "500 1000:1000 .\n400 1000:1000 API_KEY\n400 1000:1000 DB\n400 1000:1000 LARGE\nsesame\nopen\n\
                    closed\nclosed\nclosed\n1\n1\nDB_PASSWORD=open API_KEY=\n";
    assert_eq!(output, expected);
}

#[test]
fn an_instance_without_secrets_has_no_such_directory() {
    let bench = Bench::new();
    let (_, output) = bench.script("none", "ls -d /run/secrets 2>/dev/null || echo none");
    assert_eq!(output, "none\n");
}

/// Another user of the same instance's user namespace cannot read them, nor can what runs as another user outside.
#[test]
fn the_files_belong_to_the_user_of_the_instance_and_to_nobody_else() {
    let bench = Bench::new();
    let mut order = bench.image.shell("other", "while :; do sleep 1; done");
    order.volatile.push(kiln_model::Volatile::new("/run", kiln_model::ByteSize(1 << 20)));
    let pid = bench.run(&with_secrets(order, &[("API_KEY", b"sesame", None)]));
    let file = format!("/proc/{pid}/root/run/secrets/API_KEY");
    assert_eq!(fs::read(&file).unwrap(), b"sesame", "root of the host can");
    let meta = fs::metadata(&file).unwrap();
    use std::os::unix::fs::MetadataExt;
    let uid = status_of(pid, "Uid").unwrap().split_whitespace().next().unwrap().parse::<u32>().unwrap();
    assert_eq!((meta.uid(), meta.mode() & 0o7777), (uid, 0o400));
    assert!(uid >= 100_000, "a user that nobody else on the host is: {uid}");
}

/// What passes through the keeper stays neither in its memory's dumps nor in its arguments, and it keeps no copy of
/// a value that has been given: its memory is searched.
#[test]
fn the_keeper_is_undumpable_and_forgets_what_it_gave() {
    let bench = Bench::new();
    let needle = b"a-value-nobody-would-guess-4711-".repeat(4);
    let mut order = bench.image.shell("kept", "while :; do sleep 1; done");
    order.volatile.push(kiln_model::Volatile::new("/run", kiln_model::ByteSize(1 << 20)));
    bench.run(&with_secrets(order, &[("API_KEY", &needle, None)]));
    bench.engine.list().unwrap();
    let keeper = bench.keeper_pid();
    // The kernel gives the files of a process that must not be dumped to root; `CoreDumping` would be another word.
    let limits = fs::read_to_string(format!("/proc/{keeper}/limits")).unwrap();
    assert!(limits.contains("Max core file size        1 "), "{limits}");
    assert_eq!(found_in_memory(keeper, &needle), 0);
}

/// How often `needle` is in the writable memory of a process.
fn found_in_memory(pid: i32, needle: &[u8]) -> usize {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let memory = fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let mut found = 0;
    for line in maps.lines().filter(|l| l.split(' ').nth(1).is_some_and(|p| p.starts_with("rw"))) {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (u64::from_str_radix(from, 16).unwrap(), u64::from_str_radix(to, 16).unwrap());
        let mut bytes = vec![0; (to - from) as usize];
        if memory.read_exact_at(&mut bytes, from).is_ok() {
            found += bytes.windows(needle.len()).filter(|w| *w == needle).count();
        }
    }
    found
}
