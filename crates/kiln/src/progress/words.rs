//! Events in words.

use kiln_model::{BakedImage, Event, OutputStream, Progress, Timestamp};

use crate::words::{bytes, count, shown, span};

/// What is worth a line once it has happened; nothing for what is only on its way.
pub(crate) fn finished(event: &Event) -> Option<String> {
    match event {
        Event::Progress(progress) if progress.finished => Some(done(progress)),
        Event::Baked { name, image } => Some(baked(name, image)),
        Event::Checked { image, check, cached: true, .. } => {
            Some(format!("check of {image}: {check}: passed before"))
        }
        Event::Checked { image, check, millis, .. } => {
            Some(format!("check of {image}: {check}: passed ({})", span(*millis)))
        }
        Event::Follows { operation } => Some(format!("operation {operation} is under way")),
        Event::StepDone { step, millis } => Some(format!("{step} ({})", span(*millis))),
        Event::Warned { warning } => Some(format!("warning: {warning}")),
        Event::InstanceLost { instance, cause } => {
            Some(format!("instance {instance} was lost: {}", shown(cause)))
        }
        Event::HookEnded { instance, problem: Some(problem), .. } => {
            Some(format!("hook {instance} failed: {problem}"))
        }
        Event::Switched { release } => Some(format!("all new requests go to {}", release.short())),
        Event::Output { written, instance, stream, line, .. } => {
            Some(output_line(*written, instance, *stream, line))
        }
        Event::Progress(_)
        | Event::Planned { .. }
        | Event::StepBegun { .. }
        | Event::HookEnded { problem: None, .. }
        | Event::InstanceReady { .. }
        | Event::Deployed { .. }
        | Event::Failed { .. } => None,
    }
}

fn done(progress: &Progress) -> String {
    let amount = match (progress.unit.as_str(), progress.done) {
        (_, 0) | ("", _) => return progress.task.clone(),
        ("bytes", n) => bytes(n),
        (unit, n) => format!("{n} {unit}"),
    };
    format!("{}: {amount}", progress.task)
}

fn baked(name: &str, image: &BakedImage) -> String {
    let BakedImage { digest, bytes: size, reused, packages, millis, left_out: _ } = image;
    let what = format!("{}, {}, {}", digest.short(), count(*packages, "package"), bytes(*size));
    if *reused {
        format!("image {name} is unchanged: {what}")
    } else {
        format!("image {name} is baked: {what} ({})", span(*millis))
    }
}

/// A line that `whose` wrote: an instance, or one of a release.
pub(crate) fn output_line(
    written: Timestamp,
    whose: &dyn std::fmt::Display,
    stream: OutputStream,
    line: &str,
) -> String {
    let mark = match stream {
        OutputStream::Stdout => '|',
        OutputStream::Stderr => '!',
    };
    format!("{written} {whose} {mark} {line}")
}
