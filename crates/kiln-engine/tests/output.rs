//! What instances write is kept, from the first byte to the last.

mod common;

use std::fs;

use common::Bench;
use kiln_engine::Engine;
use kiln_model::{Exit, OutputLine, OutputStream};

#[test]
fn both_streams_are_kept_in_order_with_their_names() {
    let bench = Bench::new();
    bench.script("a", "echo one; sleep 0.05; echo two >&2; sleep 0.05; printf three");
    let kept = fs::read(bench.dir.path().join("output/a.log")).unwrap();
    let lines: Vec<_> = kept.split(|b| *b == b'\n').filter_map(OutputLine::parse).collect();
    let told: Vec<_> = lines.iter().map(|l| (l.stream, l.is_partial, l.text)).collect();
    assert_eq!(
        told,
        [
            (OutputStream::Stdout, false, &b"one"[..]),
            (OutputStream::Stderr, false, b"two"),
            (OutputStream::Stdout, true, b"three"),
        ]
    );
    assert!(lines.is_sorted_by_key(|l| l.at));
}

#[test]
fn the_last_byte_is_kept_before_the_end_is_told() {
    let bench = Bench::new();
    for n in 0..20 {
        let (exit, output) = bench.script(&format!("a-{n}"), "seq 1 5000; echo last >&2; exit 7");
        assert_eq!(exit, Exit::Code { code: 7 });
        assert_eq!(output.lines().count(), 5001, "run {n}");
        assert!(output.contains("5000\n") && output.contains("last\n"));
    }
}

#[test]
fn what_its_children_write_after_the_main_process_ended_is_nothing() {
    let bench = Bench::new();
    let (_, output) = bench.script("a", "( trap '' HUP TERM; sleep 1; echo late ) & echo early");
    assert_eq!(output, "early\n");
}

#[test]
fn endless_output_is_bounded_and_keeps_nobody_waiting() {
    let bench = Bench::new();
    let chatty =
        bench.image.order("chatty", &["/bin/yes", "a line that is written over and over again, without end"]);
    bench.run(&chatty);
    let kept = |name: &str| fs::metadata(bench.dir.path().join("output").join(name)).map_or(0, |m| m.len());
    let mut n = 0;
    while kept("chatty.log.1") == 0 {
        let (exit, _) = bench.script(&format!("quiet-{n}"), "echo quick");
        assert_eq!(exit, Exit::Code { code: 0 });
        n += 1;
    }
    bench.engine.kill(&[chatty.id]).unwrap();
    let most = (16 << 20) + (1 << 20);
    assert!(kept("chatty.log") < most && kept("chatty.log.1") < most);
}
