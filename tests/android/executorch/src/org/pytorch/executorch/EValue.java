package org.pytorch.executorch;

/** Interface stub of the class of that name in executorch-android, after its documentation: to compile against, never shipped. */
public class EValue {
  private EValue() {}

  public static EValue from(Tensor tensor) {
    throw new UnsupportedOperationException("stub");
  }

  public Tensor toTensor() {
    throw new UnsupportedOperationException("stub");
  }
}
