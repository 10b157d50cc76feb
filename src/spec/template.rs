//! How children are made from arguments while the system runs, in this process and those after it.
//!
//! *Invariant.* A child is made from the text of its arguments, also when it is made for the first time: what
//! cannot be read again makes no child.

use std::any::{TypeId, type_name};
use std::fmt;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{AnyChild, ChildSpec, SupervisorSpec};
use crate::error::{SpecError, TemplateError};
use crate::id::ChildPath;
use crate::port::unwound;
use crate::text;

type Make = Arc<dyn Fn(&str) -> Result<ChildSpec, String> + Send + Sync>;

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct Template {
    pub(crate) name: Arc<str>,
    arguments: TypeId,
    arguments_name: &'static str,
    make: Make,
}

impl Template {
    /// A child of this id. The text is that of its arguments.
    pub(crate) fn make(&self, id: &str, arguments: &str) -> Result<ChildSpec, String> {
        let panicked = |text| Err(format!("the template panicked: {text}"));
        let made = unwound(|| (self.make)(arguments)).unwrap_or_else(panicked)?;
        Ok(made.with_id(id))
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.name).field(&self.arguments_name).finish()
    }
}

impl SupervisorSpec {
    /// Registers how a child is made from arguments, for
    /// [`SupervisorRef::start_from`](crate::system::SupervisorRef::start_from): the way to durable children that
    /// are started while the system runs. What is started so is written down with its arguments, and
    /// [`System::recover`](crate::system::System::recover) makes it again, in every process, until it is deleted.
    /// So `make` gives the same child for the same arguments: its behavior, and whether it is durable. The id
    /// comes from whoever starts the child; the one that `make` gives is not used. A name that stands twice is
    /// refused when the tree is validated.
    ///
    /// The arguments are written as JSON, and what is in them is in the store: no keys of providers.
    ///
    /// # Default
    /// No templates: children can be started with
    /// [`SupervisorRef::start_child`](crate::system::SupervisorRef::start_child) only, and are not durable.
    ///
    /// # Examples
    /// ```
    /// # use std::sync::Arc;
    /// # use mainstay::behavior::{Behavior, Context, Stateful, Step, Turn};
    /// # use mainstay::checkpoint::{MemoryStore, Snapshot, Store};
    /// # use mainstay::error::CheckpointError;
    /// # use mainstay::fault::Fault;
    /// # use mainstay::spec::{ChildSpec, SupervisorSpec};
    /// # use mainstay::system::System;
    /// # #[derive(Clone)] struct Account { balance: Arc<u64> }
    /// # impl Behavior for Account { type Request = u64; type Reply = u64; }
    /// # impl Stateful for Account {
    /// #     async fn step(&mut self, paid: &u64, _: Turn, _: &Context) -> Result<Step<u64>, Fault> {
    /// #         self.balance = Arc::new(*self.balance + paid);
    /// #         Ok(Step::Reply(*self.balance))
    /// #     }
    /// #     fn snapshot(&self) -> Option<Snapshot> {
    /// #         Some(Snapshot::new("account", 1).with("balance", Arc::clone(&self.balance)))
    /// #     }
    /// #     fn restore(&mut self, from: &Snapshot) -> Result<(), CheckpointError> {
    /// #         self.balance = from.get("balance")?;
    /// #         Ok(())
    /// #     }
    /// # }
    /// fn bank() -> SupervisorSpec {
    ///     SupervisorSpec::dynamic("bank").template("account", |first: &u64| {
    ///         let first = *first;
    ///         let account = move || Account { balance: Arc::new(first) };
    ///         ChildSpec::stateful("", account).durable::<Account>()
    ///     })
    /// }
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
    /// let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    /// let (system, _) = System::recover(bank(), Arc::clone(&store)).await?;
    /// let path = system.supervisor("bank")?.start_from("account", "ada", &100_u64).await?;
    /// assert_eq!(system.child::<Account>(path)?.call(20_u64).await?.value, 120);
    /// system.stop().await;
    ///
    /// let (system, recovered) = System::recover(bank(), store).await?;
    /// assert_eq!(recovered.made.len(), 1);
    /// assert_eq!(system.child::<Account>("bank/ada")?.call(1_u64).await?.value, 121);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// # })?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn template<A, C>(
        mut self,
        name: impl AsRef<str>,
        make: impl Fn(&A) -> C + Send + Sync + 'static,
    ) -> Self
    where
        A: Serialize + DeserializeOwned + 'static,
        C: Into<AnyChild>,
    {
        self.templates.push(Template {
            name: Arc::from(name.as_ref()),
            arguments: TypeId::of::<A>(),
            arguments_name: type_name::<A>(),
            make: Arc::new(move |arguments| {
                let AnyChild(spec) = make(&text::read::<A>(arguments.as_bytes())?).into();
                Ok(spec)
            }),
        });
        self
    }

    /// The template of this name.
    pub(crate) fn template_named(
        &self,
        at: &ChildPath,
        name: &str,
    ) -> Result<&Template, TemplateError> {
        let found = self.templates.iter().find(|template| *template.name == *name);
        found.ok_or_else(|| TemplateError::Unknown {
            supervisor: at.clone(),
            template: name.to_owned(),
            known: self.templates.iter().map(|known| known.name.to_string()).collect(),
        })
    }

    /// A child of a template, and the text of its arguments.
    pub(crate) fn made_from<A: Serialize + DeserializeOwned + 'static>(
        &self,
        (at, id): (&ChildPath, &str),
        name: &str,
        arguments: &A,
    ) -> Result<(ChildSpec, String), TemplateError> {
        let template = self.template_named(at, name)?;
        if template.arguments != TypeId::of::<A>() {
            return Err(TemplateError::Type {
                supervisor: at.clone(),
                template: name.to_owned(),
                wanted: template.arguments_name,
                found: type_name::<A>(),
            });
        }
        let refused =
            |why| TemplateError::Arguments { child: at.join(id), template: name.to_owned(), why };
        let text = text::storable(arguments).map_err(refused)?;
        let text = String::from_utf8(text).map_err(|error| refused(error.to_string()))?;
        Ok((template.make(id, &text).map_err(refused)?, text))
    }
}

/// No name stands for two templates of one supervisor.
pub(super) fn validate(spec: &SupervisorSpec, path: &ChildPath) -> Result<(), SpecError> {
    for (at, template) in spec.templates.iter().enumerate() {
        if spec.templates[..at].iter().any(|other| other.name == template.name) {
            return Err(SpecError::BadCombination {
                path: path.to_string(),
                one: format!("a template {:?}", template.name),
                other: "a second one of this name".to_owned(),
            });
        }
    }
    Ok(())
}
