//! What the kernel takes for the same namespaces and limits, and nothing else: no image, no mounts, no users, no filter,
//! no output.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::{Value, json};

use super::Result;
use super::usage::own;

/// Starts so many programs, one after the other, and ends them.
pub(super) fn measure(count: usize) -> Result<Value> {
    let name = format!("bare-{}", std::process::id());
    let roots = roots();
    roots.iter().try_for_each(|root| fs::create_dir(root.join(&name)))?;
    let (cpu, begun) = (own(), Instant::now());
    let mut pids = Vec::with_capacity(count);
    for n in 0..count {
        pids.push(start(&roots, &name, n)?);
    }
    let started = begun.elapsed();
    let begun = Instant::now();
    for pid in &pids {
        // SAFETY: numbers; the process is a child that nobody has waited for.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
    for pid in &pids {
        // SAFETY: waitpid allows a null pointer for what it would tell.
        unsafe { libc::waitpid(*pid, std::ptr::null_mut(), 0) };
    }
    for root in &roots {
        for n in 0..count {
            remove(&root.join(&name).join(n.to_string()))?;
        }
        remove(&root.join(&name))?;
    }
    let stopped = begun.elapsed();
    Ok(json!({
        "count": count, "start_s": started.as_secs_f64(), "stop_s": stopped.as_secs_f64(), "cpu_s": own() - cpu,
    }))
}

/// Memory, cpu and pids: hierarchies of their own, or the one there is.
fn roots() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    let v1 = ["memory", "cpu", "pids"].map(|name| base.join(name));
    let unified = [base.join("unified"), base.to_owned()];
    let unified = unified.into_iter().find(|p| p.join("cgroup.procs").exists());
    v1.into_iter().filter(|p| p.join("tasks").exists()).chain(unified).collect()
}

fn start(roots: &[PathBuf], name: &str, n: usize) -> io::Result<i32> {
    for root in roots {
        let dir = root.join(name).join(n.to_string());
        fs::create_dir(&dir)?;
        let limits =
            [("memory.limit_in_bytes", "33554432"), ("cpu.cfs_quota_us", "100000"), ("pids.max", "16")];
        for (file, value) in limits {
            if dir.join(file).exists() {
                fs::write(dir.join(file), value)?;
            }
        }
    }
    let pid = child()?;
    for root in roots {
        fs::write(root.join(name).join(n.to_string()).join("cgroup.procs"), pid.to_string())?;
    }
    Ok(pid)
}

fn child() -> io::Result<i32> {
    let flags = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWNET
        | libc::CLONE_NEWUSER
        | libc::CLONE_NEWCGROUP;
    let program = c"/bin/busybox".as_ptr();
    let arguments = [c"sleep".as_ptr(), c"1000".as_ptr(), std::ptr::null()];
    // SAFETY: all zeroes is a valid value of this plain struct.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.flags = flags as u64;
    how.exit_signal = libc::SIGCHLD as u64;
    // SAFETY: the child has a copy of all memory, and does nothing in it but execute a program.
    unsafe {
        match libc::syscall(libc::SYS_clone3, &raw const how, size_of_val(&how)) {
            -1 => Err(io::Error::last_os_error()),
            0 => {
                libc::execve(program, arguments.as_ptr(), arguments[2..].as_ptr());
                libc::_exit(127)
            }
            pid => Ok(pid as i32),
        }
    }
}

/// The kernel may need a moment to let go of the last process.
fn remove(dir: &Path) -> io::Result<()> {
    loop {
        match fs::remove_dir(dir) {
            Err(e) if e.kind() == io::ErrorKind::ResourceBusy => std::thread::yield_now(),
            other => return other,
        }
    }
}
