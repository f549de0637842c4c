//! `kiln users`, `kiln projects` and `kiln limits`.

use kiln_api::{AccountView, LimitView, SetShare};
use kiln_types::{AccountKind, count};
use serde_json::json;

use super::Context;
use crate::{
    args::{FarmArgs, LimitsArgs, LimitsCommand, OrNone, SetShareArgs, SharesArgs, SharesCommand},
    exit::{Exit, Outcome},
    farm,
    output::table::table,
};

pub async fn accounts(context: &Context, kind: AccountKind, args: SharesArgs) -> Outcome<Exit> {
    match args.command {
        None => list(context, kind, &args.farm).await,
        Some(SharesCommand::List { farm }) => list(context, kind, &farm).await,
        Some(SharesCommand::Set(share)) => set(context, kind, &share).await,
    }
}

async fn list(context: &Context, kind: AccountKind, farm: &FarmArgs) -> Outcome<Exit> {
    let accounts = farm::need(&context.settings(farm)?)?.accounts(kind).await?;
    let plural = format!("{kind}s");
    context.output.result(&json!({ plural.clone(): accounts }), || {
        if accounts.is_empty() {
            return format!("No {kind} has a job. `kiln submit shot.blend --{kind} NAME` submits one.");
        }
        let row = |account: &AccountView| {
            vec![
                account.name.clone(),
                account.weight.to_string(),
                account.max_slots.map_or_else(|| "none".to_owned(), |most| most.to_string()),
                account.slots.to_string(),
                account.jobs.to_string(),
            ]
        };
        table(&["NAME", ">WEIGHT", ">CAP", ">SLOTS NOW", ">JOBS"], accounts.iter().map(row))
    });
    Ok(Exit::Done)
}

async fn set(context: &Context, kind: AccountKind, args: &SetShareArgs) -> Outcome<Exit> {
    let client = farm::need(&context.settings(&args.farm)?)?;
    let share = SetShare { weight: args.weight, max_slots: args.max_slots.map(|OrNone(most)| most) };
    let account = client.set_share(kind, &args.name, &share).await?;
    let cap = match account.max_slots {
        None => "as many slots as there are".to_owned(),
        Some(most) => format!("{} at once", count(most, "slot")),
    };
    let told = format!("The {kind} {} has the weight {}, and may use {cap}.", account.name, account.weight);
    context.output.done(&account, &told);
    Ok(Exit::Done)
}

pub async fn limits(context: &Context, args: LimitsArgs) -> Outcome<Exit> {
    match args.command {
        None => list_limits(context, &args.farm).await,
        Some(LimitsCommand::List { farm }) => list_limits(context, &farm).await,
        Some(LimitsCommand::Set { name, total, farm }) => {
            let limit = farm::need(&context.settings(&farm)?)?.set_limit(&name, total).await?;
            let told = format!("The limit {name} is {total}; {} in use.", limit.in_use);
            context.output.done(&limit, &told);
            Ok(Exit::Done)
        }
        Some(LimitsCommand::Remove { name, farm }) => {
            farm::need(&context.settings(&farm)?)?.remove_limit(&name).await?;
            context
                .output
                .done(&json!({ "limit": name, "done": "remove" }), &format!("The limit {name} is removed."));
            Ok(Exit::Done)
        }
    }
}

async fn list_limits(context: &Context, farm: &FarmArgs) -> Outcome<Exit> {
    let limits = farm::need(&context.settings(farm)?)?.limits().await?;
    context.output.result(&json!({ "limits": limits }), || {
        if limits.is_empty() {
            return "The farm has no limits. `kiln limits set NAME N` sets one.".to_owned();
        }
        let row =
            |limit: &LimitView| vec![limit.name.clone(), limit.total.to_string(), limit.in_use.to_string()];
        table(&["NAME", ">TOTAL", ">IN USE"], limits.iter().map(row))
    });
    Ok(Exit::Done)
}
