//! The current state of an instance as a new image.

use kiln_bake::{Committed, Source};
use kiln_engine::EngineError;
use kiln_model::{Answer, CommitAnswer, ExitCode, Failure, ImageName, InstanceId, Record};
use kiln_store::boundary::between;

use super::{LocalHost, failure};
use crate::contract::Caller;
use crate::world::Clock;

impl LocalHost {
    /// The instance is read and not touched: it stays what it is.
    pub(crate) fn commit(
        &self,
        id: &InstanceId,
        name: Option<ImageName>,
        by: &Caller,
    ) -> Result<Answer, Failure> {
        let _use = self.store.while_in_use().map_err(|e| failure::store(&e))?;
        let (report, service) = self.home_of(id).ok_or_else(|| self.no_such_instance(id))?;
        let root = self.engine.root(id).map_err(|e| match e {
            EngineError::NoSuchInstance(_) => self.no_such_instance(id),
            other => Failure::from_error(ExitCode::Host, &other),
        })?;
        let name = match name {
            Some(name) => name,
            None => self.name_of(&service.image)?,
        };
        let source = Source {
            instance: id,
            release: &report.release,
            image: &service.image,
            root: &root,
            volatile: &service.volatile,
        };
        let Committed { record, kept, left_out } =
            between("store", || kiln_bake::commit(&source, &name, &self.store))?;
        self.note(&Record::Committed {
            at: self.clock.now(),
            by: by.author(),
            app: report.fleet.app,
            instance: id.clone(),
            name,
            image: record.digest,
        })?;
        let handmade = record.handmade.ok_or_else(|| {
            Failure::new(ExitCode::Bug, format!("image {} is not marked as handmade", record.digest))
        })?;
        Ok(Answer::Committed(CommitAnswer { image: record.digest, handmade, kept, left_out }))
    }

    fn name_of(&self, image: &kiln_model::ImageDigest) -> Result<ImageName, Failure> {
        let record = self.store.image(image).map_err(|e| failure::store(&e))?;
        record.map(|r| r.name).ok_or_else(|| {
            Failure::new(ExitCode::Host, format!("the record of image {image} is gone from the store"))
                .hint("`kiln verify` tells what else is missing; `--name` gives the new image a name")
        })
    }
}
