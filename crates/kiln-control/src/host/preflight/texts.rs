//! Arguments and environment that no instance could be given.

use std::iter::once;

use kiln_model::{
    ByteSize, ExitCode, Failure, Probe, Release, ReleaseService, ServiceName, bytes_of_texts, can_start,
};

/// Refuses a release of which a service has more of them than its memory or the kernel takes. Secrets are not looked at:
/// none is too long for a variable, and whoever makes an instance finds them too large together.
///
/// # Errors
/// Which service, how much it has and may have.
pub(super) fn check(release: &Release) -> Result<(), Failure> {
    for (name, service) in &release.services {
        startable(name, service)?;
        let (texts, most) = (bytes_of_texts(&service.run, &service.env), service.limits.texts());
        if texts > most.0 {
            let (texts, memory) = (ByteSize(texts).about(), service.limits.memory);
            let message =
                format!("no instance of service {name} could be given its arguments and environment");
            return Err(Failure::new(ExitCode::Spec, message)
                .because(format!("they take {texts}, and may take {}, a quarter of its memory", most.about()))
                .hint(format!(
                    "raise `memory` of the service, which is {memory}, or put the values into files"
                )));
        }
    }
    Ok(())
}

/// Refuses a service with a command, of whatever kind, that the kernel would not start.
fn startable(name: &ServiceName, service: &ReleaseService) -> Result<(), Failure> {
    let hooks = service.hooks.before.iter().chain(&service.hooks.after).map(|hook| &hook.run);
    let asked = match &service.probe {
        Probe::Exec { argv } => Some(argv),
        Probe::Http(_) | Probe::Tcp => None,
    };
    for argv in once(&service.run.argv).chain(hooks).chain(asked) {
        let variables = service.env.iter().map(|(name, value)| (name.as_str(), value.len()));
        can_start(argv, variables).map_err(|e| {
            let program = argv.first().map_or("its program", String::as_str);
            Failure::new(ExitCode::Spec, format!("{program} of service {name} could not be started"))
                .because(e.to_string())
                .hint("put what is long into a file of the image, or into a secret, which is a file, too")
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::tests::release;
    use super::*;

    #[test]
    fn what_is_larger_than_a_quarter_of_the_memory_is_refused() {
        let mut release = release();
        assert_eq!(check(&release), Ok(()));
        let web = release.services.values_mut().next().unwrap();
        web.limits.memory = ByteSize(1 << 20);
        web.env.extend(["B", "C"].map(|name| (name.into(), "x".repeat(100_000))));
        let rest = usize::try_from((1 << 18) - bytes_of_texts(&web.run, &web.env)).unwrap();
        web.env.insert("A".into(), "x".repeat(rest - 1));
        assert_eq!(check(&release), Ok(()), "exactly a quarter");
        let web = release.services.values_mut().next().unwrap();
        web.env.insert("A".into(), "x".repeat(rest));
        let refused = check(&release).unwrap_err();
        assert!(refused.message.contains("service web"), "{refused}");
        assert!(refused.hint.unwrap().contains("which is 1MiB"));
    }

    #[test]
    fn what_the_kernel_would_not_start_is_refused() {
        let long = || "x".repeat(200_000);
        let refused = |change: &dyn Fn(&mut ReleaseService)| {
            let mut release = release();
            let web = release.services.values_mut().next().unwrap();
            web.limits.memory = ByteSize(1 << 30);
            change(web);
            check(&release).unwrap_err().to_string() + &check(&release).unwrap_err().causes.concat()
        };
        let of_variable = refused(&|web| drop(web.env.insert("A".into(), long())));
        assert!(of_variable.contains("service web could not be started"), "{of_variable}");
        assert!(of_variable.contains("variable `A` has 200002 bytes"), "{of_variable}");
        let of_argument = refused(&|web| web.run.argv.push(long()));
        assert!(of_argument.contains("has 200000 bytes"), "{of_argument}");
        let of_probe = refused(&|web| web.probe = Probe::Exec { argv: vec!["/bin/ask".into(), long()] });
        assert!(
            of_probe.contains("/bin/ask of service web") && of_probe.contains("argument 1"),
            "{of_probe}"
        );
    }
}
