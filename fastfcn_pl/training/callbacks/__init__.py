"""What watches a run, and what each logger gets of it.

| key | what it is | where |
|---|---|---|
| `train/loss`, `train/<term>` | the weighted sum and each term of the loss, not weighted | all |
| `lr-<optimizer>/<group>` | learning rate of a parameter group | all |
| `train/grad_norm` | L2 norm of all gradients, before clipping | all |
| `train/images_per_second`, `train/data_wait` | over all devices; share of the time that waits for data | all |
| `train/gpu_memory_gib` | the most since the last log, of the fullest GPU; not on CPUs | all |
| `val/mIoU`, `val/pixel_accuracy`, `val/mean_accuracy` | scores of a validation | all |
| `val/IoU/<class>` | of each class, as a series | all |
| `val/samples/<n>` | a fixed image; W&B has masks `truth`, `prediction`, `error` | W&B, TensorBoard |
| `val/classes` | table: class, IoU, accuracy, Dice, share | W&B |
| `val/confusion` | confusion matrix as a picture, rows are shares of the true class | W&B, TensorBoard |
| `val/confusion_chart` | the same to point at; its table is `Custom Chart Tables/val/confusion_chart_table` | W&B |
| `final/mIoU`, `final/pixel_accuracy`, `final/mean_accuracy` | scores of the best checkpoint | all |
| `final/IoU/<class>` | of each class | all |
| `final/classes`, `final/confusion`, `final/confusion_chart` | as of a validation | as there |
| `final/worst` | the images of the lowest mIoU; in W&B with masks | W&B, TensorBoard |

The x-axis is `trainer/global_step`. W&B's summary has the last value of each number, and facts: `backbone`, `neck`,
`head`, `aux_head`, `protocol`, `data`, `train_split`, `train_images`, `val_images`, `data_fingerprint`, `commit`,
`seed`, `world_size`, `effective_batch_size`, `best_mIoU` and `best_step`; `parameters`, `gmacs` and `latency_ms`, which
its configuration has, too; and `final/mIoU_over`, such as `1 of 2 classes`, if some have no pixel. The configuration
also lies in its files as `resolved_config.yaml`. Artifacts, where asked for: `code-<run id>`, and `model-<run id>` with
the aliases `best` and `step-<step>`.
"""
