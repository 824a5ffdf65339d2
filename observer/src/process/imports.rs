//! What an interpreter has imported that tells its framework.
use crate::identity::ProcessKey;
use crate::identity::framework::Application;
use crate::identity::framework::Imports;
use crate::identity::framework::SEARCHED;
use crate::process::facts;
use crate::python::image::Images;
use crate::python::modules;
use crate::python::runtime::Runtime;

/// What a process has imported, and what its application is, if that is said to be somewhere. Nothing for a process that
/// ended, or whose interpreter cannot be read.
pub fn read(process: ProcessKey, application: Option<&Application>, images: &mut Images) -> Option<Imports> {
    let runtime = Runtime::find(process.pid, images)?.ok()?;
    if facts::start(process.pid) != Some(process.start) {
        return None; // another process with its pid
    }
    let application = application.map(|at| (at.module.as_str(), at.name.as_str()));
    let found = modules::read(&runtime, &SEARCHED, application)?;
    Some(Imports { modules: found.imported, application: found.application })
}
