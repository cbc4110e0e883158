#if canImport(Darwin) && canImport(ImageIO) && canImport(Security)
    import ClueCore

    extension Platform {
        /// What an app uses: the device's own answers, the Keychain, ImageIO.
        /// - Parameter battery: follows the battery once its `watch()` was called on the main actor.
        public static func apple(battery: Battery = Battery()) -> Platform {
            Platform(device: AppleDevice(battery: battery), signers: KeychainSigners(), decoder: ImageIODecoder())
        }
    }
#endif
