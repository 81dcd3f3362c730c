//! The suite that every backend of the store must pass: functions over a store that can make
//! itself for a test, stamped out by [`conformance!`], one test for each.
//!
//! What only one backend has (files, migrations) is tested beside it.

pub(in crate::store) mod applying;
pub(in crate::store) mod branching;
pub(in crate::store) mod charting;
pub(in crate::store) mod fixture;
pub(in crate::store) mod gangs;
pub(in crate::store) mod holding;
pub(in crate::store) mod leasing;
pub(in crate::store) mod races;
pub(in crate::store) mod reporting;
pub(in crate::store) mod retaining;
pub(in crate::store) mod scheduling;
pub(in crate::store) mod sharing;
pub(in crate::store) mod trunks;
pub(in crate::store) mod trying;
pub(in crate::store) mod viewing;

/// One test for each function of the suite, on the backend that the factory makes; a factory that
/// answers none has said why.
macro_rules! conformance {
    ($factory:path) => {
        crate::store::conformance::tests! {$factory:
            applying {
                a_study_without_its_sources_leaves_nothing,
                applying_twice_makes_nothing_new,
                runs_wait_for_their_data,
                prepared_data_releases_the_runs,
                data_that_cannot_be_made_fails_the_runs,
                damaged_data_is_made_again,
                an_edited_study_cancels_what_it_dropped,
                a_run_of_two_studies_survives_the_cancel_of_one,
                a_cancelled_study_can_be_retried,
                applying_a_cancelled_study_measures_its_checkpoints,
                the_priority_is_the_largest_over_the_studies,
                verbs_for_a_long_study_reach_every_run_and_no_other,
                what_is_not_there_is_not_found,
            }
            leasing {
                work_is_granted_once_and_tokens_grow,
                only_an_active_worker_is_granted_work,
                a_worker_that_registers_twice_stays_confirmed,
                an_assignment_says_all_that_is_needed,
                an_expired_lease_is_given_to_another_worker,
                a_failure_backs_off_until_its_budget_is_spent,
                a_worker_that_leaves_gives_its_work_back,
                a_lost_worker_loses_its_leases_and_may_come_back,
                a_drain_outlives_the_loss_of_a_worker,
                an_agent_started_again_ends_its_older_registration,
                a_restarted_container_inherits_nothing,
                a_second_worker_of_one_name_gets_another,
                a_cancelled_run_takes_its_right_from_the_holder,
            }
            holding {
                a_paused_study_is_granted_nothing_and_gives_its_slots_back,
                a_run_of_two_studies_is_held_only_when_both_are_paused,
                data_for_a_paused_study_is_not_prepared,
                no_hold_outlives_what_it_came_from,
                another_priority_moves_the_queue,
                a_retry_of_one_class_leaves_the_others,
                each_way_to_fail_has_its_own_budget,
                a_run_that_did_not_fit_takes_half_as_much_at_a_time,
                a_micro_batch_beyond_the_batch_is_halved_from_the_batch,
            }
            reporting {
                a_data_point_queues_its_evaluation_once,
                runs_with_the_same_weights_have_an_evaluation_each,
                a_new_study_of_an_old_run_gets_its_evaluations,
                a_new_study_of_a_run_under_way_gets_its_data_points,
                an_evaluation_that_failed_is_queued_when_its_weights_come_again,
                a_stale_token_changes_nothing,
                the_same_end_twice_is_answered_alike,
                a_success_without_a_result_is_a_bug,
                a_diverged_run_is_over,
                a_checkpoint_that_fails_twice_is_not_offered_again,
                the_first_attempt_fixes_the_numerics,
                a_report_is_stored_whole_and_may_be_repeated,
                an_evaluation_ends_with_its_value,
            }
            retaining {
                the_last_three_checkpoints_and_the_data_points_are_kept,
                only_what_is_sound_stands_in_for_a_checkpoint,
                a_data_point_of_another_study_is_kept,
                a_branch_keeps_what_it_may_begin_from,
                a_run_that_gets_on_may_lose_as_many_workers_again,
            }
            charting {
                points_that_come_again_change_nothing,
                points_in_any_order_are_all_kept,
                a_restart_is_seen_across_chunks,
                a_thinned_curve_is_exact_across_chunks,
                a_window_of_a_curve_is_exact,
            }
            races {
                two_grants_at_once_give_each_run_once,
                an_expiry_and_an_end_agree_on_who_was_first,
                a_cancel_and_an_end_agree_on_who_was_first,
                the_same_report_twice_at_once_is_stored_once,
                many_commands_at_once_are_all_answered,
            }
            scheduling {
                a_large_study_hides_no_other,
                a_run_of_two_studies_is_granted_for_the_more_urgent_one,
                a_study_is_its_first_users_and_says_its_terms,
                a_label_brings_work_to_the_worker_that_has_it,
                evaluations_follow_their_runs_study,
                a_budget_is_spent_by_what_was_begun,
                evaluations_hide_nothing_of_others,
                runs_that_fit_nowhere_hide_no_other,
                the_whole_queue_is_read_page_by_page,
                a_log_rule_keeps_work_from_a_worker,
                a_machine_that_cannot_is_charged_and_avoided,
                a_log_rule_stops_retries,
                events_say_who,
            }
            gangs {
                a_gang_is_granted_whole_or_not_at_all,
                every_member_has_its_rank,
                only_rank_0_says_what_counts,
                the_end_of_a_gang_is_the_end_of_all_its_rights,
                a_lost_member_loses_the_attempt,
                a_member_that_fails_ends_the_attempt_so,
                a_member_that_leaves_has_rank_0_asked,
                a_log_rule_keeps_a_gang_from_the_member_that_failed,
                the_largest_gang_is_granted,
            }
            trunks {
                a_run_waits_for_the_checkpoint_that_it_goes_on_from,
                a_run_whose_source_ends_begins_with_what_there_is,
                a_trunk_that_is_damaged_is_passed_over_by_its_branch,
                two_runs_that_find_a_trunk_damaged_settle_it,
                a_study_of_trunks_is_cancelled_and_retried_whole,
                a_run_rounds_as_its_trunk_did_or_is_marked,
                data_points_of_another_study_are_trained,
                a_paused_study_keeps_no_run_of_another_waiting,
                data_that_comes_late_releases_the_first_of_a_trunk,
            }
            branching {
                a_branch_that_needs_less_memory_keeps_its_trunk,
                a_branch_that_begins_anew_is_charged_whole,
                a_source_that_needs_less_memory_keeps_its_branches,
                a_source_that_cannot_be_afforded_keeps_nobody_waiting,
                data_that_comes_late_passes_over_what_cannot_be_afforded,
                a_source_that_a_rule_keeps_away_keeps_nobody_waiting,
                a_branch_waits_for_a_source_of_another_study_that_is_carried_out,
                what_was_taken_over_is_given_back_with_the_source,
                checkpoints_that_may_not_be_used_hide_none,
            }
            trying {
                what_is_tried_out_is_exact_and_leaves_nothing,
                a_cancel_that_is_tried_out_takes_no_right,
                what_is_tried_out_beside_changes_undoes_none,
            }
            sharing {
                a_study_is_judged_by_its_own_evaluations,
            }
            viewing {
                every_view_shows_a_study_in_the_middle_of_its_work,
                a_restart_hides_what_it_has_undone,
                a_name_finds_what_it_names,
                what_a_fit_is_made_from_is_complete,
            }
        }
    };
}

macro_rules! tests {
    ($factory:path: $($module:ident { $($name:ident),* $(,)? })*) => {
        $($(
            #[tokio::test]
            async fn $name() {
                let Some(made) = $factory().await else { return };
                let fixture = crate::store::conformance::fixture::Fixture::new(made);
                crate::store::conformance::$module::$name(&fixture).await;
                fixture.check().await;
            }
        )*)*
    };
}

pub(in crate::store) use {conformance, tests};
