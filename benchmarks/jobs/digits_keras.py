"""数字作业，用 keras（torch 后端）。"""

import keras
from given import epochs, net, train, valid
from keras.callbacks import BackupAndRestore, CSVLogger, EarlyStopping, ModelCheckpoint
from torch.utils.data import DataLoader

model = keras.Sequential([keras.layers.TorchModuleWrapper(net)])
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile(keras.optimizers.AdamW(), loss, metrics=["accuracy"])
last = BackupAndRestore("last", delete_checkpoint=False)
best = ModelCheckpoint("best.weights.h5", save_best_only=True, save_weights_only=True)
callbacks = [last, best, EarlyStopping(patience=3), CSVLogger("log.csv", append=True)]
train_loader, valid_loader = DataLoader(train, 64, shuffle=True), DataLoader(valid, 64)
model.fit(train_loader, epochs=epochs, validation_data=valid_loader, callbacks=callbacks)
