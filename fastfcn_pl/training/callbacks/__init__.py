"""Callbacks of a run. They log the following to all loggers, or to W&B and TensorBoard alone.

| key | meaning | logger |
|---|---|---|
| `train/loss`, `train/<term>` | weighted sum of the loss; each unweighted term | all |
| `lr-<optimizer>/<group>` | learning rate of a parameter group | all |
| `train/grad_norm` | L2 norm of all gradients, before clipping | all |
| `train/images_per_second` | images per second over all devices | all |
| `train/data_wait` | share of the time spent waiting for data | all |
| `train/gpu_memory_gib` | peak memory since the last log, of the fullest GPU | all |
| `val/mIoU`, `val/pixel_accuracy`, `val/mean_accuracy` | scores of a validation | all |
| `val/IoU/<class>` | IoU of each class | all |
| `val/samples/<n>` | a fixed image; in W&B with the masks `truth`, `prediction`, `error` | W&B, TensorBoard |
| `val/classes` | table of the class scores: IoU, accuracy, Dice, share | W&B |
| `val/confusion` | confusion matrix as an image; rows are shares of the true class | W&B, TensorBoard |
| `val/confusion_chart` | interactive chart; its table is `Custom Chart Tables/val/confusion_chart_table` | W&B |
| `val/approximation_error`, `val/approximation_cosine` | 1 - R^2 and cosine of a neck's approximation | all |
| `final/mIoU`, `final/pixel_accuracy`, `final/mean_accuracy` | scores of the best checkpoint | all |
| `final/IoU/<class>` | IoU of each class | all |
| `final/<diagnostic>/<score>/<case>` | scores of the `diagnostics`, as fractions | all |
| `final/classes`, `final/confusion`, `final/confusion_chart` | as in a validation | as in a validation |
| `final/approximation_error`, `final/approximation_cosine` | as in a validation | all |
| `final/worst` | the images with the lowest mIoU; in W&B with masks | W&B, TensorBoard |

The x-axis is `trainer/global_step`. W&B's summary holds the last value of each number and these facts about the run:

- `backbone`, `neck`, `head`, `aux_head`, `protocol`
- `data`, `train_split`, `train_images`, `val_images`, `data_fingerprint`
- `commit`, `seed`, `world_size`, `effective_batch_size`
- `best_mIoU`, `best_step`
- `parameters`, `gmacs`, `latency_ms` (also in W&B's configuration)
- `final/mIoU_over`, such as `1 of 2 classes`, if some classes have no pixel

W&B also gets the configuration as the file `resolved_config.yaml`. Optional artifacts are `code-<run id>`, and
`model-<run id>` with the aliases `best` and `step-<step>`.
"""
