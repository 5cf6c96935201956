//! A filter program for the kernel, made from a list.
//!
//! The kernel runs a filter for every number once when it is installed, to learn which calls it need not ask about,
//! and again for the others: so the list becomes a search tree over ranges of numbers, not a chain of comparisons.

use std::collections::BTreeMap;
use std::ffi::c_long;

use libc::sock_filter;

/// A call that is allowed with certain arguments only.
pub(super) struct Condition {
    pub(super) call: c_long,
    pub(super) test: Test,
    /// What the call answers otherwise.
    pub(super) errno: i32,
}

/// What is asked of the low words of a call's arguments (all tested ones have 32 bits).
pub(super) enum Test {
    /// One of these combinations of argument and value.
    AnyOf(&'static [&'static [(u8, u32)]]),
    /// The argument has none of these bits.
    NoBits(u8, u32),
    /// The argument is none of these.
    NoneOf(u8, &'static [u32]),
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Allow,
    Refuse(i32),
}

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Numbers from here on belong to another way of calling (x32), or to nobody.
const FOREIGN: u32 = 0x4000_0000;
/// The last number this list was made with. Programs try newer calls and fall back when told they do not exist.
const LAST_KNOWN: u32 = 469;

const NUMBER_AT: u32 = 0;
const ARCHITECTURE_AT: u32 = 4;
const ARGUMENTS_AT: u32 = 16;

const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
const GO: u16 = (libc::BPF_JMP | libc::BPF_JA) as u16;
const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
const IF_AT_LEAST: u16 = (libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K) as u16;
const IF_ANY_BIT: u16 = (libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16;
const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;

/// The program that allows `calls`, `conditions` permitting, and nothing else.
pub(super) fn assemble(calls: &[c_long], conditions: &[Condition]) -> Vec<sock_filter> {
    let mut program = vec![
        load(ARCHITECTURE_AT),
        jump(IF_EQUAL, ARCHITECTURE, 1, 0),
        verdict(Verdict::Refuse(libc::ENOSYS)),
        load(NUMBER_AT),
    ];
    for condition in conditions {
        let block = condition.block();
        program.extend(skip_unless(condition.call as u32, block.len()));
        program.extend(block);
    }
    program.extend(tree(&segments(calls)));
    program
}

fn load(offset: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: offset }
}

fn jump(code: u16, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn verdict(verdict: Verdict) -> sock_filter {
    let k = match verdict {
        Verdict::Allow => libc::SECCOMP_RET_ALLOW,
        Verdict::Refuse(errno) => libc::SECCOMP_RET_ERRNO | errno as u32,
    };
    sock_filter { code: RETURN, jt: 0, jf: 0, k }
}

/// Passes over the next `length` instructions unless the loaded number is `call`.
fn skip_unless(call: u32, length: usize) -> [sock_filter; 2] {
    [jump(IF_EQUAL, call, 1, 0), sock_filter { code: GO, jt: 0, jf: 0, k: length as u32 }]
}

impl Condition {
    /// Ends with a verdict on every way through.
    fn block(&self) -> Vec<sock_filter> {
        let mut block = match self.test {
            Test::AnyOf(alternatives) => alternatives.iter().flat_map(|all| alternative(all)).collect(),
            Test::NoBits(argument, mask) => {
                vec![argument_at(argument), jump(IF_ANY_BIT, mask, 1, 0), verdict(Verdict::Allow)]
            }
            Test::NoneOf(argument, values) => none_of(argument, values),
        };
        block.push(verdict(Verdict::Refuse(self.errno)));
        block
    }
}

fn argument_at(argument: u8) -> sock_filter {
    load(ARGUMENTS_AT + 8 * u32::from(argument))
}

/// Allows if all hold, else goes on behind itself.
fn alternative(all: &[(u8, u32)]) -> Vec<sock_filter> {
    let mut code = Vec::new();
    for (done, (argument, value)) in all.iter().enumerate() {
        let left = 2 * (all.len() - done - 1) + 1;
        code.extend([argument_at(*argument), jump(IF_EQUAL, *value, 0, left as u8)]);
    }
    code.push(verdict(Verdict::Allow));
    code
}

/// Goes on behind itself if one holds, else allows.
fn none_of(argument: u8, values: &[u32]) -> Vec<sock_filter> {
    let mut code = vec![argument_at(argument)];
    for (done, value) in values.iter().enumerate() {
        code.push(jump(IF_EQUAL, *value, (values.len() - done) as u8, 0));
    }
    code.push(verdict(Verdict::Allow));
    code
}

/// The first number of each range of equal verdicts.
fn segments(calls: &[c_long]) -> Vec<(u32, Verdict)> {
    let mut verdicts: BTreeMap<u32, Verdict> =
        (0..=LAST_KNOWN).map(|n| (n, Verdict::Refuse(libc::EPERM))).collect();
    verdicts.extend(calls.iter().map(|call| (*call as u32, Verdict::Allow)));
    // Its flags are in memory, which no filter sees; C libraries fall back to clone, whose flags are filtered.
    verdicts.insert(libc::SYS_clone3 as u32, Verdict::Refuse(libc::ENOSYS));
    verdicts.extend([LAST_KNOWN + 1, FOREIGN].map(|n| (n, Verdict::Refuse(libc::ENOSYS))));
    let mut segments: Vec<(u32, Verdict)> = verdicts.into_iter().collect();
    segments.dedup_by_key(|(_, verdict)| *verdict);
    segments
}

/// Finds the segment of the loaded number by halving. All ways end at the same few verdicts behind the questions: the
/// kernel translates every instruction for every instance anew.
fn tree(segments: &[(u32, Verdict)]) -> Vec<sock_filter> {
    let mut ends: Vec<Verdict> = Vec::new();
    for (_, verdict) in segments {
        if !ends.contains(verdict) {
            ends.push(*verdict);
        }
    }
    let first_end = segments.len() - 1;
    let mut code = Vec::with_capacity(first_end + ends.len());
    ask(segments, &mut code, &|verdict| first_end + ends.iter().take_while(|end| **end != verdict).count());
    code.extend(ends.into_iter().map(verdict));
    code
}

/// Adds the questions that tell these segments apart: one fewer than there are. `end` is where a verdict will be.
fn ask(segments: &[(u32, Verdict)], code: &mut Vec<sock_filter>, end: &dyn Fn(Verdict) -> usize) {
    if segments.len() < 2 {
        return;
    }
    let (low, high) = segments.split_at(segments.len() / 2);
    let next = code.len() + 1;
    let way = |side: &[(u32, Verdict)], questions: usize| {
        let to = if let [(_, only)] = side { end(*only) } else { questions };
        u8::try_from(to - next).expect("the list is short enough to pass over all of it")
    };
    let (if_high, if_low) = (way(high, next + low.len() - 1), way(low, next));
    code.push(jump(IF_AT_LEAST, high[0].0, if_high, if_low));
    ask(low, code, end);
    ask(high, code, end);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::embedded::seccomp::{allowed, filter};

    /// Runs a program as the kernel would, and counts its instructions.
    fn run(program: &[sock_filter], architecture: u32, number: u32, arguments: [u32; 6]) -> (u32, usize) {
        let (mut at, mut accumulator, mut steps) = (0, 0, 0);
        loop {
            let i = program[at];
            (at, steps) = (at + 1, steps + 1);
            let holds = match i.code {
                RETURN => return (i.k, steps),
                LOAD => {
                    accumulator = match i.k {
                        NUMBER_AT => number,
                        ARCHITECTURE_AT => architecture,
                        k => arguments[(k as usize - 16) / 8],
                    };
                    continue;
                }
                GO => {
                    at += i.k as usize;
                    continue;
                }
                IF_EQUAL => accumulator == i.k,
                IF_AT_LEAST => accumulator >= i.k,
                IF_ANY_BIT => accumulator & i.k != 0,
                other => panic!("unknown instruction {other:#x}"),
            };
            at += usize::from(if holds { i.jt } else { i.jf });
        }
    }

    fn answer(call: c_long, arguments: [u32; 6]) -> u32 {
        run(&filter(), ARCHITECTURE, call as u32, arguments).0
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    fn refused(errno: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | errno as u32
    }

    #[test]
    fn every_number_has_the_verdict_of_the_list() {
        let (program, calls) = (filter(), allowed::calls());
        let conditional: Vec<c_long> = allowed::conditions().iter().map(|c| c.call).collect();
        for number in (0..1000).filter(|n| !conditional.contains(n)) {
            let expected = match number {
                n if n == libc::SYS_clone3 => refused(libc::ENOSYS),
                n if calls.contains(&n) => ALLOW,
                n if n <= LAST_KNOWN.into() => refused(libc::EPERM),
                _ => refused(libc::ENOSYS),
            };
            let (answer, steps) = run(&program, ARCHITECTURE, number as u32, [0; 6]);
            assert_eq!(answer, expected, "call {number}");
            assert!(steps < 40, "{steps} instructions for call {number}");
        }
    }

    #[test]
    fn other_ways_of_calling_do_not_exist() {
        let write = libc::SYS_write as u32;
        assert_eq!(run(&filter(), 0x4000_0003, write, [0; 6]).0, refused(libc::ENOSYS), "32-bit");
        assert_eq!(run(&filter(), ARCHITECTURE, FOREIGN | write, [0; 6]).0, refused(libc::ENOSYS), "x32");
    }

    #[test]
    fn threads_are_allowed_and_namespaces_are_not() {
        let thread = 0x3d0f00; // What pthread_create passes.
        assert_eq!(answer(libc::SYS_clone, [thread, 0, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer(libc::SYS_clone, [libc::SIGCHLD as u32, 0, 0, 0, 0, 0]), ALLOW);
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET, libc::CLONE_NEWPID] {
            assert_eq!(answer(libc::SYS_clone, [thread | flag as u32, 0, 0, 0, 0, 0]), refused(libc::EPERM));
        }
        assert_eq!(answer(libc::SYS_unshare, [0; 6]), refused(libc::EPERM));
    }

    #[test]
    fn sockets_stay_in_the_network_namespace() {
        let socket =
            |family: i32, protocol: u32| answer(libc::SYS_socket, [family as u32, 1, protocol, 0, 0, 0]);
        for family in [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6] {
            assert_eq!(socket(family, 6), ALLOW);
        }
        assert_eq!(socket(libc::AF_NETLINK, libc::NETLINK_ROUTE as u32), ALLOW);
        for (family, protocol) in [
            (libc::AF_NETLINK, libc::NETLINK_NETFILTER as u32),
            (libc::AF_NETLINK, libc::NETLINK_AUDIT as u32),
            (libc::AF_VSOCK, 0),
            (libc::AF_PACKET, 0),
            (libc::AF_ALG, 0),
        ] {
            assert_eq!(socket(family, protocol), refused(libc::EAFNOSUPPORT), "{family} {protocol}");
        }
    }

    #[test]
    fn nothing_is_typed_into_a_terminal() {
        assert_eq!(answer(libc::SYS_ioctl, [0, libc::TCGETS as u32, 0, 0, 0, 0]), ALLOW);
        assert_eq!(answer(libc::SYS_ioctl, [0, libc::TIOCSTI as u32, 0, 0, 0, 0]), refused(libc::EPERM));
        assert_eq!(answer(libc::SYS_ioctl, [0, libc::TIOCLINUX as u32, 0, 0, 0, 0]), refused(libc::EPERM));
    }

    #[test]
    fn it_fits_the_kernel() {
        // It could have 4096; what it has takes time at each start.
        assert!(filter().len() < 150, "{} instructions", filter().len());
    }
}
