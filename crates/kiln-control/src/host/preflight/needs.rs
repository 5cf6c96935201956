//! What a service needs and finds only where its own port is not in the way.

use kiln_model::{Need, NeedName, Release, ServiceName};

/// What is doubtful about what this release needs: an instance that asks for another service at the port that is its own
/// asks itself. (A need that could be reached in no other way is refused with the spec.)
pub(in crate::host) fn doubts(release: &Release) -> impl Iterator<Item = String> {
    release.services.iter().flat_map(|(name, service)| {
        service.needs.iter().filter_map(|(need, what)| doubt(name, service.port, need, what))
    })
}

fn doubt(name: &ServiceName, own: u16, need: &NeedName, what: &Need) -> Option<String> {
    let Need::Service { port } = what else { return None };
    (*port == own).then(|| {
        format!(
            "in instances of {name}, {need}:{port} is the instance itself, because both services listen on {port}: \
             {need} is at http://{need}/ there"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::release;
    use super::*;

    #[test]
    fn who_would_ask_itself_is_told_where_to_ask() {
        let mut release = release();
        let web = release.services.values_mut().next().unwrap();
        web.port = 8080;
        web.needs.insert("api".parse().unwrap(), Need::Service { port: 8081 });
        web.needs.insert("db".parse().unwrap(), Need::Store { address: "10.0.0.5:8080".parse().unwrap() });
        assert_eq!(doubts(&release).count(), 0);
        let web = release.services.values_mut().next().unwrap();
        web.needs.insert("api".parse().unwrap(), Need::Service { port: 8080 });
        let told: Vec<String> = doubts(&release).collect();
        let expected = "in instances of web, api:8080 is the instance itself, because both services listen on 8080: \
                        api is at http://api/ there";
        assert_eq!(told, [expected]);
    }
}
