//! The healers of a pipeline: where they are asked, and how many there may be.

use penstock_core::settings::Operator;

use crate::children::names;
use crate::name::Name;
use crate::plan::{Part, Plan};

/// The healers of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Healers {
    /// Where one of them answers, without a slash at the end.
    pub(crate) url: String,
    pub(crate) deployment: Name,
    pub(crate) min: u16,
    pub(crate) max: u16,
    /// How many repos one reads at once.
    pub(crate) parallelism: u16,
    pub(crate) suspended: bool,
}

// === impl Healers ===

impl Healers {
    /// Returns those of a plan, where it has any.
    pub(crate) fn new(plan: &Plan, operator: &Operator) -> Option<Self> {
        let own = plan.part(Part::Heal)?;
        let (name, namespace, heal) = (&plan.name, &plan.namespace, &plan.spec.heal);
        let service = names::part(name, Part::Heal);
        let url = match &operator.heal_url {
            Some(url) => url.replace("{namespace}", namespace).replace("{name}", name),
            None => format!("http://{service}.{namespace}.svc:{}", own.admin_port),
        };
        let number = |replicas: i32| u16::try_from(replicas.max(1)).unwrap_or(u16::MAX);
        Some(Self {
            url: url.trim_end_matches('/').to_owned(),
            deployment: Name { namespace: namespace.clone(), name: service },
            min: number(heal.min_replicas),
            max: number(heal.max_replicas),
            parallelism: number(heal.parallelism),
            suspended: plan.spec.suspend,
        })
    }
}
