//! What instances write, on its way to files.
//!
//! | module | noun |
//! |---|---|
//! | `pipe` | one output of one instance, read without ever waiting |
//! | `transit` | where bytes are between pipe and file, whenever a keeper is killed |
//! | `lines` | bytes as lines |
//! | `output_file` | the file of an instance, bounded in size |
//! | `note` | what is missing from it, said in it |

mod lines;
mod note;
mod output_file;
mod pipe;
mod transit;

pub(super) use output_file::OutputDir;
pub(super) use pipe::OutputPipe;
pub(super) use transit::Transit;
