//! Arguments and environment that no instance could be given.

use kiln_model::{ByteSize, ExitCode, Failure, Release, bytes_of_texts};

/// Refuses a release of which a service has more of them than its memory takes. Secrets are not looked at: whoever makes
/// an instance finds them too large.
///
/// # Errors
/// Which service, how much it has and may have.
pub(super) fn check(release: &Release) -> Result<(), Failure> {
    for (name, service) in &release.services {
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
        let rest = usize::try_from((1 << 18) - bytes_of_texts(&web.run, &web.env)).unwrap();
        web.env.insert("A".into(), "x".repeat(rest - 1));
        assert_eq!(check(&release), Ok(()), "exactly a quarter");
        let web = release.services.values_mut().next().unwrap();
        web.env.insert("A".into(), "x".repeat(rest));
        let refused = check(&release).unwrap_err();
        assert!(refused.message.contains("service web"), "{refused}");
        assert!(refused.hint.unwrap().contains("which is 1MiB"));
    }
}
