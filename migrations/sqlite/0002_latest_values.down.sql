ALTER TABLE runs DROP COLUMN latest_train_loss_nats;
ALTER TABLE runs DROP COLUMN latest_tokens_per_second;
