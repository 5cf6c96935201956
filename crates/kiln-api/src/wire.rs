//! What goes over the wire.

use kiln_model::{Answer, Failure, Stamped};
use serde::{Deserialize, Serialize};

/// One line of the answer to `POST /v1/commands`: any number of events, then one answer or one failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Line {
    /// Something happened. (It comes first here because an event may carry a failure of its own.)
    Event(Stamped),
    /// It is done. The last line.
    Answer {
        /// The answer to the command.
        answer: Answer,
    },
    /// It was not done. The last line.
    Failure {
        /// Why.
        failure: Failure,
    },
}

impl Line {
    /// The line that ends an answer.
    pub(crate) fn last(result: Result<Answer, Failure>) -> Self {
        match result {
            Ok(answer) => Self::Answer { answer },
            Err(failure) => Self::Failure { failure },
        }
    }

    /// As it is sent: JSON and a line end.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("lines are made of maps with string keys");
        bytes.push(b'\n');
        bytes
    }
}
