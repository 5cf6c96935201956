//! What a program inside an instance sees, and what it cannot do.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::CommandExt;

use common::{Bench, status_of};
use kiln_engine::Engine;
use kiln_model::{ByteSize, Capability, Exit, InstanceOrder, Volatile};

/// Each line is an attempt; those that succeed print their number.
const ATTEMPTS: &[&str] = &[
    "touch /written",
    "echo x > /etc/passwd",
    "mount -o remount,rw /",
    "mount -o remount,exec /tmp",
    "mount -t tmpfs none /tmp",
    "mount -o bind /bin /tmp",
    "umount /tmp",
    "umount /proc",
    "umount -l /",
    "unshare -U true",
    "unshare -m true",
    "unshare -n true",
    "hostname other",
    "chroot / /bin/true",
    "mknod /tmp/null c 1 3",
    "mknod /tmp/disk b 254 0",
    "cat /bin/busybox > /tmp/program; chmod 755 /tmp/program; /tmp/program true",
    "cat /bin/busybox > /dev/shm/program; chmod 755 /dev/shm/program; /dev/shm/program true",
    "echo 1 > /proc/sys/kernel/panic",
    "echo 1 > /proc/sys/net/ipv4/ip_forward",
    "echo c > /proc/sysrq-trigger",
    "echo 0 > /proc/self/uid_map",
    "echo 100 > /proc/sys/user/max_user_namespaces",
    "head -c 1 /proc/kcore | grep -q .",
    "ls /proc/acpi",
    "ls /sys/kernel",
    "touch /sys/anything",
    "touch /dev/anything",
    "ip link set lo down",
    "ip link add dummy0 type dummy",
    "ip addr add 10.1.2.3/8 dev lo",
    "wget -T 1 -q -O /dev/null http://1.1.1.1/",
    "echo -1000 > /proc/self/oom_score_adj",
];

fn attempts() -> String {
    let numbered = ATTEMPTS.iter().enumerate();
    let lines = numbered
        .map(|(n, attempt)| format!("if ( {attempt} ) >/dev/null 2>&1; then echo succeeded {n}; fi\n"));
    lines.chain(["echo all tried\n".into()]).collect()
}

fn as_root(mut order: InstanceOrder) -> InstanceOrder {
    (order.run.uid, order.run.gid) = (0, 0);
    order
}

fn refused(order: &InstanceOrder, bench: &Bench) {
    let (_, output) = bench.to_end(order);
    let succeeded: Vec<&str> = output
        .lines()
        .filter_map(|l| l.strip_prefix("succeeded "))
        .map(|n| ATTEMPTS[n.parse::<usize>().unwrap()])
        .collect();
    assert!(succeeded.is_empty() && output.contains("all tried"), "succeeded: {succeeded:#?}\n{output}");
}

/// Links of images lead to it (`/etc/machine-id`).
#[test]
fn each_instance_has_an_identity_of_its_own() {
    let bench = Bench::new();
    let identity = |name| {
        let mut order = bench.image.shell(name, "stat -c %a /run/machine-id; cat /run/machine-id");
        order.volatile.push(kiln_model::Volatile::new("/run", kiln_model::ByteSize(1 << 20)));
        let (_, output) = bench.to_end(&order);
        let id = output
            .strip_prefix("444\n")
            .and_then(|id| id.strip_suffix('\n'))
            .unwrap_or_else(|| panic!("{output}"));
        assert!(
            id.len() == 32 && id.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c)),
            "{id}"
        );
        id.to_owned()
    };
    assert_ne!(identity("one"), identity("two"));
}

#[test]
fn a_user_cannot_get_out() {
    let bench = Bench::new();
    refused(&bench.image.shell("user", &attempts()), &bench);
}

#[test]
fn root_inside_cannot_get_out_either() {
    let bench = Bench::new();
    refused(&as_root(bench.image.shell("root", &attempts())), &bench);
}

/// The program that knows the kernel, in an image with what it needs from this host.
fn escape(bench: &Bench, id: &str, arguments: &[&str]) -> InstanceOrder {
    let argv = [&["/bin/escape"], arguments].concat();
    bench.image.order(id, &argv)
}

#[test]
fn a_program_that_knows_the_kernel_cannot_get_out() {
    let bench = Bench::with_program(env!("CARGO_BIN_EXE_escape-for-tests"), "/bin/escape");
    for order in [escape(&bench, "user", &[]), as_root(escape(&bench, "root", &[]))] {
        let (_, output) = bench.to_end(&order);
        assert_eq!(output, "all tried\n", "{}", order.id);
    }
}

/// How much of an allowance an instance found.
fn found(bench: &Bench, order: &InstanceOrder) -> usize {
    bench.run(order);
    bench.wait_for_output(&order.id, "there were ");
    let output = bench.output(&order.id);
    output.trim().rsplit(' ').next().unwrap().parse().unwrap()
}

#[test]
fn nobody_uses_up_what_a_sibling_may_watch() {
    let bench = Bench::with_program(env!("CARGO_BIN_EXE_escape-for-tests"), "/bin/escape");
    let all = ["first", "second"].map(|id| found(&bench, &as_root(escape(&bench, id, &["use-up-inotify"]))));
    assert!(all[0] > 0 && all[0] == all[1], "{all:?}");
    // SAFETY: a number; the descriptor is given an owner.
    let own = unsafe { libc::inotify_init1(libc::IN_CLOEXEC) };
    assert!(own >= 0, "nor what the host may");
    // SAFETY: it was just made.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(own) });
}

#[test]
fn nobody_uses_up_the_pipes_of_another_app() {
    let bench = Bench::with_program(env!("CARGO_BIN_EXE_escape-for-tests"), "/bin/escape");
    let greedy = escape(&bench, "greedy", &["use-up-pipes"]);
    let mut other = escape(&bench, "other", &["use-up-pipes"]);
    other.app = "another".parse().unwrap();
    let all = [found(&bench, &greedy), found(&bench, &other)];
    assert!(all[0] > 100 && all[0].abs_diff(all[1]) < 8, "{all:?}");
}

#[test]
fn no_privilege_is_left_even_to_root_inside() {
    let bench = Bench::new();
    let fields = "Cap|NoNewPrivs|Seccomp:|Groups";
    let (_, output) =
        bench.to_end(&as_root(bench.image.shell("root", &format!("grep -E '{fields}' /proc/self/status"))));
    let values: BTreeMap<&str, &str> =
        output.lines().filter_map(|l| l.split_once(':')).map(|(k, v)| (k, v.trim())).collect();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(values[set], "0000000000000000", "{set}");
    }
    assert_eq!((values["NoNewPrivs"], values["Seccomp"], values["Groups"]), ("1", "2", ""));
}

#[test]
fn what_is_asked_for_by_name_is_there_and_nothing_else() {
    let bench = Bench::new();
    let script = "grep Cap /proc/self/status; touch /tmp/x; chown 0:7 /tmp/x; stat -c %u:%g /tmp/x; \
                  chroot / /bin/echo changed; echo answer | nc -l -p 80 & while ! nc 127.0.0.1 80 2>/dev/null; do true; done";
    let mut order = bench.image.shell("some", script);
    order.capabilities = [Capability::Chown, Capability::NetBindService, Capability::SysChroot].into();
    let (_, output) = bench.to_end(&order);
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert!(output.contains(&format!("{set}:\t0000000000040401\n")), "{set}: {output}");
    }
    assert!(output.ends_with("\n0:7\nchanged\nanswer\n"), "{output}");
    let (_, output) = bench.script("none", script);
    assert!(output.contains("CapEff:\t0000000000000000\n") && output.contains("\n1000:1000\n"), "{output}");
    assert!(!output.contains("changed"), "{output}");
}

#[test]
fn no_capability_gets_anybody_out() {
    let bench = Bench::with_program(env!("CARGO_BIN_EXE_escape-for-tests"), "/bin/escape");
    // That it may call `chroot` is what it asked for.
    let tried: String =
        attempts().lines().filter(|l| !l.contains("chroot")).map(|l| format!("{l}\n")).collect();
    let users: [fn(InstanceOrder) -> InstanceOrder; 2] = [std::convert::identity, as_root];
    for make in users {
        let mut order = make(bench.image.shell("all", &tried));
        order.id = format!("all-{}", order.run.uid).parse().unwrap();
        order.capabilities = Capability::ALL.into();
        refused(&order, &bench);
        let mut order = make(escape(&bench, "escape", &[]));
        order.id = format!("escape-{}", order.run.uid).parse().unwrap();
        order.capabilities = Capability::ALL.into_iter().filter(|c| *c != Capability::SysChroot).collect();
        assert_eq!(bench.to_end(&order).1, "all tried\n", "{}", order.id);
    }
}

#[test]
fn a_volatile_path_is_executable_where_that_is_asked_for() {
    let bench = Bench::new();
    let script =
        "for dir in /tmp /root; do cat /bin/busybox > $dir/echo; chmod 755 $dir/echo; $dir/echo $dir; done";
    let mut order = bench.image.shell("a", script);
    order.volatile.push(Volatile { path: "/root".into(), size: ByteSize(4 << 20), exec: true });
    let (_, output) = bench.to_end(&order);
    assert!(output.ends_with("/root\n") && output.contains("/tmp/echo: Permission denied"), "{output}");
}

#[test]
fn root_inside_is_nobody_outside_and_distinct_apps_are_distinct_users() {
    let bench = Bench::new();
    let sleep = |id| as_root(bench.image.order(id, &["/bin/sleep", "1000"]));
    let (first, mut second) = (sleep("first"), sleep("second"));
    second.app = "another".parse().unwrap();
    let uids = [first, second].map(|order| status_of(bench.run(&order), "Uid").unwrap());
    let uid = |n: usize| uids[n].split_whitespace().next().unwrap().parse::<u32>().unwrap();
    assert!((0x1000_0000..0x5000_0000).contains(&uid(0)), "{uids:?}");
    assert!(uid(0).abs_diff(uid(1)) >= 65_536, "{uids:?}");
}

#[test]
fn all_namespaces_are_its_own() {
    let bench = Bench::new();
    let pid = bench.run(&bench.image.order("a", &["/bin/sleep", "1000"]));
    for kind in ["user", "pid", "mnt", "uts", "ipc", "net", "cgroup"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
    }
}

#[test]
fn a_program_finds_what_it_expects() {
    let bench = Bench::new();
    let script = "hostname; id -u; id -g; pwd; echo $$; umask; cat /proc/1/environ | tr '\\0' '\\n'; \
                  ls /dev; ulimit -n; grep core /proc/self/limits | tr -s ' '; echo to-dev-stdout > /dev/stdout; \
                  echo x > /tmp/x && cat /tmp/x; stat -c '%u %a' /tmp /dev/shm; cat /proc/self/cgroup | cut -d: -f3 | grep -v '^/$'; \
                  nc -l -p 80 < /dev/null & echo done";
    let mut order = bench.image.shell("fixture-web-1-1", script);
    order.env = BTreeMap::from([("GREETING".into(), "hello world".into())]);
    order.run.workdir = "/tmp".into();
    let (exit, output) = bench.to_end(&order);
    assert_eq!(exit, Exit::Code { code: 0 }, "{output}");
    let environment =
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nHOME=/\nGREETING=hello world\n";
    let expected = format!("fixture-web-1-1\n1000\n1000\n/tmp\n1\n0022\n{environment}");
    assert!(output.starts_with(&expected), "{output}");
    for part in [
        "fd\nfull\nnull\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n",
        "\n1024\nMax core file size 1 1 bytes \nto-dev-stdout\nx\n1000 1777\n1000 1777\n",
    ] {
        assert!(output.contains(part), "{part:?} is not in:\n{output}");
    }
    assert!(!output.contains("denied"), "{output}");
}

/// Whoever starts the host may do that with limits, ignored signals and a memory layout that can be foretold.
#[test]
fn it_does_not_inherit_from_whoever_started_the_host() {
    let bench = Bench::prepared(kiln_testkit::fixture_image::FixtureImage::new(), |command| {
        // SAFETY: these calls are allowed between fork and execution, and change this child only.
        unsafe {
            command.pre_exec(|| {
                let small = |most| rustix::process::Rlimit { current: Some(most), maximum: None };
                rustix::process::setrlimit(rustix::process::Resource::Cpu, small(1000))?;
                rustix::process::setrlimit(rustix::process::Resource::Fsize, small(1 << 20))?;
                libc::signal(libc::SIGUSR1, libc::SIG_IGN);
                libc::signal(libc::SIGWINCH, libc::SIG_IGN);
                libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong);
                Ok(())
            });
        }
    });
    let script = "grep SigIgn /proc/self/status; ulimit -t; ulimit -f; cat /proc/self/personality";
    let (_, output) = bench.script("a", script);
    assert_eq!(output, "SigIgn:\t0000000000000000\nunlimited\nunlimited\n00000000\n");
}

#[test]
fn there_is_no_network_but_loopback() {
    let bench = Bench::new();
    // The answer is there before anybody listens: a server that hears first that the client has nothing to say ends.
    let script = "ip -o link | cut -d: -f2; ip -o link | grep -c LOOPBACK,UP; ip route; \
                  nc -l -p 80 <<END & while ! nc 127.0.0.1 80 2>/dev/null; do true; done\nanswer\nEND\n";
    let (_, output) = bench.script("a", script);
    assert_eq!(output, " lo\n1\nanswer\n");
}

#[test]
fn a_program_that_cannot_be_executed_says_why() {
    let bench = Bench::new();
    let cases = [
        ("/bin/missing", "which is not in its image"),
        ("/bin/not-executable", "which is not executable (its mode is 0644)"),
        ("/bin/not-a-program", "which is neither an ELF program nor a script"),
        ("/bin/other-machine", "which is built for riscv64; this host is x86-64"),
        ("/bin/no-loader", "which needs /lib/ld-missing.so, which is not in its image"),
        ("/bin/no-interpreter", "which needs /bin/missing, which is not in its image"),
        ("/etc", "which is not a regular file"),
        ("relative", "is not an absolute path"),
    ];
    for (n, (program, why)) in cases.into_iter().enumerate() {
        let order = bench.image.order(&format!("a-{n}"), &[program]);
        let (exit, _) = bench.to_end(&order);
        let Exit::NotStarted { cause } = &exit else { panic!("{program}: {exit:?}") };
        assert!(cause.contains(program) && cause.contains(why), "{program}: {cause}");
    }
    let mut order = bench.image.order("hidden", &["/bin/true"]);
    order.volatile.push(Volatile::new("/bin", ByteSize(1 << 20)));
    let (exit, _) = bench.to_end(&order);
    assert!(exit.to_string().contains("/bin/true, which the volatile path /bin hides"), "{exit}");
}

/// A descriptor of the keeper's that is still open when the working directory is entered would lead to the host.
#[test]
fn no_working_directory_leads_out_by_a_descriptor() {
    let bench = Bench::new();
    for number in 0..64 {
        let mut order = bench.image.shell(&format!("a-{number}"), "ls ../../../../..");
        order.run.workdir = format!("/proc/self/fd/{number}");
        let (exit, output) = bench.to_end(&order);
        assert!(
            exit.to_string().contains("could not change to the working directory"),
            "{number}: {exit}\n{output}"
        );
    }
}

#[test]
fn what_its_image_lacks_is_named() {
    let bench = Bench::new();
    let mut order = bench.image.order("a", &["/bin/true"]);
    order.volatile[0].path = "/var/lib/missing".into();
    let (exit, _) = bench.to_end(&order);
    let cause = "could not mount the volatile path /var/lib/missing: No such file or directory (os error 2)";
    assert_eq!(exit, Exit::NotStarted { cause: cause.into() });
    let mut order = bench.image.order("b", &["/bin/true"]);
    order.run.workdir = "/nowhere".into();
    let (exit, _) = bench.to_end(&order);
    assert!(exit.to_string().contains("could not change to the working directory /nowhere"), "{exit}");
    assert_eq!(bench.engine.list().unwrap().len(), 2);
}
