//! The ServiceAccounts of the parts: no part speaks to the API server, so none has a token or a role.

use k8s_openapi::api::core::v1::ServiceAccount;

use super::child::{Child, Stage};
use super::{labels, names};
use crate::plan::Plan;

pub(super) fn children(plan: &Plan) -> impl Iterator<Item = Child> {
    plan.parts.iter().map(|own| own.part).filter(|part| part.pod(&plan.spec).service_account_name.is_none()).map(
        |part| {
            let account = ServiceAccount {
                metadata: labels::meta(plan, names::part(&plan.name, part), part.component()),
                automount_service_account_token: Some(false),
                ..ServiceAccount::default()
            };
            Child::of(Stage::Before, &account)
        },
    )
}
